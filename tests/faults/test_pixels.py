"""Rows 22 to 24: of pixels that are damaged or missing, only they are lost, and the result lists them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from tests.faults.one_run import NAME, assert_told, digest_of, published, run_one
from tests.slides.make import drop_tile, flips, patch, tile_entry
from wsi_nuc.errors import OK, SLIDES, DamagedPixels
from wsi_nuc.features.summary import slide_summary
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.manifest import read
from wsi_nuc.types import Box, SlideRef

# The file has tiles of 256 px at 0.5 um per pixel, four in a row. This is the sixth.
TILE, BOX = 5, [256, 256, 512, 512]
TILE_MM2 = (256 * 0.5 / 1000) ** 2
# More than the classical model looks at around a nucleus.
SIGHT_PX = 64


def copy_of(slide: Path, folder: Path) -> Path:
    folder.mkdir()
    return Path(shutil.copyfile(slide, folder / NAME))


def nuclei(store: str) -> Any:
    return geopandas.read_parquet(Path(store) / "shapes/nuclei/shapes.parquet").geometry


def flipped(slide: Path, folder: Path) -> Path:
    """The slide with twenty bits of one tile flipped, so that its decoder notices."""
    path = copy_of(slide, folder)
    for _ in flips(path, 0, TILE, seed=3, times=100):
        source = open_slide(SlideRef(str(path)))
        try:
            source.read(0, Box(*BOX))
        except DamagedPixels:
            return path
        finally:
            source.close()
    raise AssertionError("no flip was noticed")


def test_row_22_bits_flipped_in_tile_data(slide: Path, tmp_path: Path) -> None:
    bad, out = flipped(slide, tmp_path / "bad"), tmp_path / "out"
    refused = run_one(bad, out)
    assert_told(refused, SLIDES, "1 place cannot be decoded", "(256.0, 256.0, 512.0, 512.0)", "--allow-bad-tiles")
    assert published(out) == []
    warned: list[str] = []
    allowed = run_one(bad, out, lambda event: warned.append(getattr(event, "message", "")), allow_bad_tiles=True)
    assert allowed.exit_code == OK
    assert any("of the low-resolution view could not be decoded" in message for message in warned)
    tiles = read(Path(allowed.store))["tiles"]
    assert tiles["damaged_boxes_l0"] == [BOX]
    assert tiles["failed_boxes_l0"] == tiles["missing_boxes_l0"] == []
    assert tiles["damaged_mm2"] == pytest.approx(TILE_MM2)
    counted = sum(tiles[name] for name in ("processed", "background", "missing", "failed"))
    assert (tiles["failed"], counted) == (0, tiles["total"])
    # A result with bad tiles does not count for a run that does not allow them.
    assert run_one(bad, out).exit_code == SLIDES
    assert run_one(bad, out, allow_bad_tiles=True).status == "verified"


def test_row_23_tile_of_length_zero(slide: Path, undisturbed: str, tmp_path: Path) -> None:
    bad, warned = copy_of(slide, tmp_path / "bad"), list[str]()
    drop_tile(bad, 0, TILE)
    done = run_one(bad, tmp_path / "out", lambda event: warned.append(getattr(event, "message", "")))
    assert done.exit_code == OK
    assert done.tiles["missing"] > 0
    assert any(
        "1 place without data" in message and "(256.0, 256.0, 512.0, 512.0)" in message for message in warned
    )
    tiles = read(Path(done.store))["tiles"]
    assert tiles["missing_boxes_l0"] == [BOX]
    assert done.area_mm2 - done.usable_mm2 == pytest.approx(TILE_MM2)
    assert digest_of(tmp_path / "out") not in ("", undisturbed)
    # A slide without pixels does not count as one without nuclei.
    for tile in range(8):
        drop_tile(bad, 0, tile)
    nothing = run_one(bad, tmp_path / "nothing")
    assert nothing.tiles["processed"] == 0
    assert nothing.tiles["missing"] > 0
    assert nothing.usable_mm2 == 0


@pytest.mark.parametrize("reader", ["jpegtiff", "openslide"])
def test_row_24_good_tiles_around_a_bad_one(slide: Path, tmp_path: Path, reader: str) -> None:
    bad = copy_of(slide, tmp_path / "bad")
    offset, count, _ = tile_entry(bad, 0, TILE)
    patch(bad, offset, bytes(count))
    good = run_one(slide, tmp_path / "good", reader=reader)
    partly = run_one(bad, tmp_path / "partly", reader=reader, allow_bad_tiles=True)
    assert read(Path(partly.store))["tiles"]["damaged_boxes_l0"] == [BOX]
    box, all_of_them, left = shapely.box(*BOX), nuclei(good.store), nuclei(partly.store)
    assert left.distance(box).min() > 1
    far = set(all_of_them[all_of_them.distance(box) > SIGHT_PX].to_wkb())
    assert far
    assert far == set(left[left.distance(box) > SIGHT_PX].to_wkb())
    assert len(left) > 0.85 * (all_of_them.distance(box) > 0).sum()
    figures = slide_summary(Path(partly.store))
    assert figures["usable_mm2"] == pytest.approx(good.area_mm2 - TILE_MM2)
    assert figures["nuclei_per_mm2"] == pytest.approx(len(left) / figures["usable_mm2"])
    again = run_one(bad, tmp_path / "again", reader=reader, allow_bad_tiles=True, region_size=4096)
    assert digest_of(tmp_path / "again") == digest_of(tmp_path / "partly") != ""
    assert again.tiles == partly.tiles
    assert np.isfinite(figures["nuclei_per_mm2"])
