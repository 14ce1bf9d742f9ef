"""Reading around damage, with every reader: all good pixels come back, and exactly the lost ones are marked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.slides.make import TILE, drop_tile, patch, tile_entry
from wsi_nuc.slides.pixels import read_around
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import Box, SlideRef

Find = Callable[[str], Path]
AROUND = Box(-20, -10, 430, 330)
HEIGHT, WIDTH = AROUND.height, AROUND.width


def placed(box: Box) -> np.ndarray:
    """A mask of a box of the level, in the frame of AROUND."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[box.y0 - AROUND.y0 : box.y1 - AROUND.y0, box.x0 - AROUND.x0 : box.x1 - AROUND.x0] = True
    return mask


@pytest.mark.parametrize("reader", ["jpegtiff", "openslide", "tiffslide"])
def test_one_bad_tile_of_a_file_is_all_that_is_lost(slide: Find, reader: str, tmp_path: Path) -> None:
    good = open_slide(SlideRef(str(slide("aperio.svs")), reader)).read(0, AROUND).rgb
    path = shutil.copyfile(slide("aperio.svs"), tmp_path / "damaged.svs")
    offset, count, _ = tile_entry(path, 0, 7)
    patch(path, offset, bytes(count))
    drop_tile(path, 0, 2)
    source = open_slide(SlideRef(str(path), reader))
    damaged = placed(Box(TILE, TILE, 2 * TILE, 2 * TILE))
    missing = placed(Box(2 * TILE, 0, 3 * TILE, TILE))
    for _ in range(2):
        block = read_around(source, 0, AROUND)
        np.testing.assert_array_equal(block.damaged, damaged)
        np.testing.assert_array_equal(block.missing, missing)
        assert (block.rgb[damaged | missing] == 255).all()
        np.testing.assert_array_equal(block.rgb[~(damaged | missing)], good[~(damaged | missing)])
        assert "damaged" in block.cause
    elsewhere = read_around(source, 0, Box(3 * TILE, TILE, 4 * TILE, 2 * TILE))
    assert elsewhere.damaged is None
    assert elsewhere.cause == ""


@pytest.mark.parametrize("version", ["04", "05"])
def test_one_bad_chunk_is_all_that_is_lost(slide: Find, version: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.zarr"
    shutil.copytree(slide(f"v{version}.zarr"), path)
    # The slide opens whichever chunk is damaged, even the first chunk of the smallest level.
    for chunk in {"04": ("0/0.1.1", "2/0.0.0"), "05": ("0/c/0/1/1", "2/c/0/0/0")}[version]:
        (path / chunk).write_bytes(b"\1\2\3")
    good = open_slide(SlideRef(str(slide(f"v{version}.zarr")))).read(0, AROUND).rgb
    block = read_around(open_slide(SlideRef(str(path))), 0, AROUND)
    damaged = placed(Box(TILE, TILE, 2 * TILE, 2 * TILE))
    np.testing.assert_array_equal(block.damaged, damaged)
    assert block.missing is None
    np.testing.assert_array_equal(block.rgb[~damaged], good[~damaged])
