"""The tests that every reader passes on every file that it opens."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.slides.conftest import REAL
from tests.slides.make import SAMPLES, TILE, drop_tile, patch, picture, pyramid, tile_entry
from wsi_nuc.errors import DamagedPixels
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import Box, SlideRef, SlideSource

Find = Callable[[str], Path]

GENERATED = [(reader, name) for name, sample in SAMPLES.items() for reader in sample.readers]
REAL_CASES = [
    ("jpegtiff", "cmu"),
    ("openslide", "cmu"),
    ("tiffslide", "cmu"),
    ("jpegtiff", "tcga"),
    ("openslide", "tcga"),
    ("tiffslide", "tcga"),
    ("openslide", "ndpi"),
    ("jpegtiff", "os1"),
    ("tiffslide", "os1"),
    ("openslide", "dcm"),
]


def cases(*pairs: tuple[str, str]) -> list[object]:
    real = pytest.mark.real_data
    return [pytest.param(*pair, marks=real if pair[1] in REAL else ()) for pair in pairs]


every = pytest.mark.parametrize(("reader", "name"), cases(*GENERATED, *REAL_CASES))
READ_SETTINGS = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# TIFF readers with a tile store, where a tile can be taken away or damaged.
tiled = pytest.mark.parametrize("reader", ["jpegtiff", "openslide", "tiffslide"])


def opened(find: Find, reader: str, name: str) -> SlideSource:
    return open_slide(SlideRef(str(find(name)), reader))


@every
def test_levels_are_sane(slide: Find, reader: str, name: str) -> None:
    info = opened(slide, reader, name).info
    assert info.reader == reader
    assert (info.levels[0].width, info.levels[0].height, info.levels[0].downsample) == (
        info.width,
        info.height,
        1.0,
    )
    for larger, level in zip(info.levels, info.levels[1:], strict=False):
        assert level.width < larger.width
        assert level.downsample > larger.downsample
    for level in info.levels:
        assert level.width * level.downsample == pytest.approx(info.width, abs=level.downsample)
        assert level.height * level.downsample == pytest.approx(info.height, abs=level.downsample)


@every
@READ_SETTINGS
@given(data=st.data())
def test_a_box_is_the_crop_of_any_bigger_box(slide: Find, reader: str, name: str, data: st.DataObject) -> None:
    source = opened(slide, reader, name)
    level = data.draw(st.integers(0, len(source.info.levels) - 1))
    size = source.info.levels[level]
    x = data.draw(st.integers(-40, size.width + 10))
    y = data.draw(st.integers(-40, size.height + 10))
    box = Box(x, y, x + data.draw(st.integers(1, 300)), y + data.draw(st.integers(1, 300)))
    grown = box.grow(data.draw(st.integers(1, 150)))
    small, big = source.read(level, box).rgb, source.read(level, grown).rgb
    assert small.shape == (box.height, box.width, 3)
    inner = box.shift(-grown.x0, -grown.y0)
    np.testing.assert_array_equal(small, big[inner.y0 : inner.y1, inner.x0 : inner.x1])
    source.close()


@every
def test_what_overhangs_is_white_and_not_missing(slide: Find, reader: str, name: str) -> None:
    source = opened(slide, reader, name)
    for level, size in enumerate(source.info.levels):
        block = source.read(level, Box(-30, -20, size.width + 7, 9))
        assert block.missing is None
        for strip in (block.rgb[:20], block.rgb[:, :30], block.rgb[:, 30 + size.width :]):
            assert (strip == 255).all()
        outside = source.read(level, Box(size.width + 5, 0, size.width + 25, 10))
        assert outside.rgb.shape == (10, 20, 3)
        assert (outside.rgb == 255).all()
        assert outside.missing is None


@pytest.mark.parametrize(
    ("reader", "name"),
    cases(*[c for c in GENERATED + REAL_CASES if c[0] in ("jpegtiff", "tiffslide") and c[1] != "os1"]),
)
def test_pixels_agree_with_openslide(slide: Find, reader: str, name: str) -> None:
    path = slide(name)
    source, other = opened(slide, reader, name), openslide.OpenSlide(str(path))
    theirs = {size: at for at, size in enumerate(other.level_dimensions)}
    sizes = [(level.width, level.height) for level in source.info.levels]
    assert set(theirs) <= set(sizes)
    for level, size in enumerate(sizes):
        if size in theirs:
            corner = (min(size[0], 1400), min(size[1], 1400))
            ours = source.read(level, Box(0, 0, *corner)).rgb.astype(int)
            pixels = np.asarray(other.read_region((0, 0), theirs[size], corner))[..., :3]
            assert np.abs(ours - pixels).max() <= 2


@pytest.mark.parametrize(("reader", "name"), cases(*GENERATED))
def test_pixels_are_those_that_were_written(slide: Find, reader: str, name: str) -> None:
    source = opened(slide, reader, name)
    size = source.info.levels[0]
    read = source.read(0, Box(0, 0, size.width, size.height)).rgb.astype(int)
    difference = np.abs(read - picture())
    assert difference.mean() <= (0 if SAMPLES[name].lossless else 1.5)
    for level, pixels in enumerate(pyramid()[: len(source.info.levels)]):
        height, width = pixels.shape[:2]
        shown = source.read(level, Box(0, 0, width, height)).rgb.astype(int)
        # OpenSlide interpolates where a level's own downsample is not whole: a quarter of a pixel at most.
        assert np.abs(shown - pixels).mean() <= 3.0


@every
def test_reading_writes_nothing(slide: Find, reader: str, name: str, tmp_path: Path) -> None:
    path = slide(name)
    copy = tmp_path / path.name
    shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}
    source = open_slide(SlideRef(str(copy), reader))
    source.read(0, Box(0, 0, 64, 64))
    source.close()
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")} == before


@every
def test_threads_read_what_one_thread_reads(slide: Find, reader: str, name: str) -> None:
    source = opened(slide, reader, name)
    boxes = [Box(x, y, x + 90, y + 90) for x in (0, 100, 200) for y in (0, 100)]
    alone = [source.read(0, box).rgb for box in boxes]
    together: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for at in range(start, len(boxes), 3):
            together[at] = source.read(0, boxes[at]).rgb

    threads = [threading.Thread(target=work, args=(start,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at, pixels in enumerate(alone):
        np.testing.assert_array_equal(together[at], pixels)


@tiled
def test_a_tile_without_data_is_missing_and_the_rest_is_not(slide: Find, reader: str, tmp_path: Path) -> None:
    path = shutil.copyfile(slide("aperio.svs"), tmp_path / "gap.svs")
    whole = Box(0, 0, 400, 300)
    before = open_slide(SlideRef(str(path), reader)).read(0, whole).rgb
    drop_tile(path, 0, 7)
    block = open_slide(SlideRef(str(path), reader)).read(0, whole)
    assert block.missing is not None
    expected = np.zeros((300, 400), bool)
    expected[TILE : 2 * TILE, TILE : 2 * TILE] = True
    np.testing.assert_array_equal(block.missing, expected)
    assert (block.rgb[expected] == 255).all()
    np.testing.assert_array_equal(block.rgb[~expected], before[~expected])


@tiled
def test_a_damaged_tile_is_named_and_the_good_ones_are_read_after_it(
    slide: Find, reader: str, tmp_path: Path
) -> None:
    good = open_slide(SlideRef(str(slide("aperio.svs")), reader))
    path = shutil.copyfile(slide("aperio.svs"), tmp_path / "damaged.svs")
    offset, count, _ = tile_entry(path, 0, 7)
    patch(path, offset, bytes(count))
    source = open_slide(SlideRef(str(path), reader))
    for _ in range(2):
        with pytest.raises(DamagedPixels, match=r"damaged\.svs, level 0") as caught:
            source.read(0, Box(TILE, TILE, 2 * TILE, 2 * TILE))
        assert "--allow-bad-tiles" in caught.value.remedy
        for box in (Box(0, 0, TILE, TILE), Box(3 * TILE, TILE, 4 * TILE, 3 * TILE)):
            np.testing.assert_array_equal(source.read(0, box).rgb, good.read(0, box).rgb)


@pytest.mark.parametrize("version", ["04", "05"])
def test_a_zarr_chunk_that_is_gone_is_missing_and_a_damaged_one_is_named(
    slide: Find, version: str, tmp_path: Path
) -> None:
    path = tmp_path / "copy.zarr"
    shutil.copytree(slide(f"v{version}.zarr"), path)
    separator = {"04": "0/0.1.1", "05": "0/c/0/1/1"}[version]
    (path / separator).unlink()
    (path / separator.replace("1", "2")).write_bytes(b"\1\2\3")
    source = open_slide(SlideRef(str(path)))
    block = source.read(0, Box(0, 0, 2 * TILE, 2 * TILE))
    assert block.missing is not None
    assert block.missing[TILE:, TILE:].all()
    assert block.missing.sum() == TILE * TILE
    with pytest.raises(DamagedPixels, match="level 0"):
        source.read(0, Box(2 * TILE, 2 * TILE, 3 * TILE, 3 * TILE))
    np.testing.assert_array_equal(source.read(0, Box(0, 0, TILE, TILE)).rgb, picture()[:TILE, :TILE])
