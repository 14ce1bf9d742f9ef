"""The low-resolution view: small, from the cheapest level, in little memory, and an error where there is none."""

from __future__ import annotations

import math
import weakref
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tiling.scenes import ArraySource, glass
from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.slides.overview import BLOCK_PX, MOST_PIXELS, choose_view, overview
from wsi_nuc.types import Box, Level, PixelBlock, SlideInfo, UInt8

SIDE = st.integers(1, 2**20)
STEP = st.floats(1.0, 64.0)


def pyramid(width: int, height: int, steps: list[float]) -> SlideInfo:
    """Each level is smaller than the last by a step that need not be whole."""
    levels, downsample = [Level(width, height, 1.0)], 1.0
    for step in steps:
        downsample *= step
        levels.append(Level(math.ceil(width / downsample), math.ceil(height / downsample), downsample))
    return SlideInfo("array", "", width, height, tuple(levels), None, "")


@given(SIDE, SIDE, st.lists(STEP, max_size=6), st.floats(0.02, 100.0))
@example(200_000, 200_000, [16.0], 0.25)
@example(100_000, 100_000, [57.7], 0.25)
def test_the_view_never_exceeds_its_pixels(width: int, height: int, steps: list[float], mpp: float) -> None:
    info = pyramid(width, height, steps)
    index, factor = choose_view(info, mpp)
    level = info.levels[index]
    # As `overview` rounds: a part of a view pixel at the far edge is a whole one.
    assert math.ceil(level.width / factor) * math.ceil(level.height / factor) <= MOST_PIXELS


@given(SIDE, SIDE, st.lists(STEP, max_size=6), st.floats(0.02, 100.0))
def test_no_finer_level_is_read_than_the_view_needs(
    width: int, height: int, steps: list[float], mpp: float
) -> None:
    info = pyramid(width, height, steps)
    index, factor = choose_view(info, mpp)
    coarser = [level.downsample for level in info.levels if level.downsample > info.levels[index].downsample]
    # A coarser level would have shown less detail than one more whole step of this one.
    assert all(level > info.levels[index].downsample * (factor - 1) for level in coarser)


@pytest.mark.parametrize(
    ("size", "downsamples"), [(100_000, (1, 4, 16, 64)), (100_000, (1,)), (1_000, (1,)), (40, (1,))]
)
def test_the_view_is_small_and_comes_from_the_cheapest_level(size: int, downsamples: tuple[int, ...]) -> None:
    levels = tuple(Level(size // d, size // d, float(d)) for d in downsamples)
    index, factor = choose_view(SlideInfo("array", "", size, size, levels, None, ""), 0.25)
    level = levels[index]
    assert (level.width / factor) ** 2 <= MOST_PIXELS
    assert index == len(levels) - (2 if len(levels) > 1 else 1)


def test_a_large_level_is_read_in_blocks_and_each_pixel_once() -> None:
    source = ArraySource(np.full((6000, 9000, 3), 240, np.uint8))
    view = overview(source, 0.25)
    assert max(box.area for _, box in source.reads) <= BLOCK_PX**2
    assert sum(box.area for _, box in source.reads) <= 6000 * 9000 * 1.02
    assert (view.rgb == 240).all()


def test_damaged_places_do_not_stay_in_memory_while_the_rest_is_read() -> None:
    """An error's traceback holds the pixels that were to be filled, of a box many times as large as the damage."""

    class Watched(ArraySource):
        buffers: ClassVar[list[weakref.ref[UInt8]]] = []
        most = 0

        def read(self, level: int, box: Box) -> PixelBlock:
            rgb = np.empty((box.height, box.width, 3), np.uint8)
            self.buffers.append(weakref.ref(rgb))
            self.most = max(self.most, sum(buffer() is not None for buffer in self.buffers))
            return super().read(level, box)

    spots = tuple(Box(x, y, x + 9, y + 9) for y in range(300, 5000, 1000) for x in range(300, 5000, 1000))
    source = Watched(np.full((5000, 5000, 3), 240, np.uint8), damaged=spots)
    lost = sum(box.area for box in source.damaged) / 5000**2
    assert overview(source, 0.5).damaged == pytest.approx(lost)
    assert source.most <= 2


def test_a_level_too_large_to_be_looked_through_is_refused_unread() -> None:
    source = ArraySource(glass())
    levels = (Level(400_000, 400_000, 1.0), Level(1_000, 1_000, 400.0))
    source.info = SlideInfo("array", "", 400_000, 400_000, levels, 0.25, "")
    with pytest.raises(SlideError, match=r"^its smallest level .*400000 x 400000 px.*pyramid"):
        overview(source, 0.25)
    assert not source.reads


def test_a_view_that_cannot_be_decoded_at_all_is_the_slide_s_error() -> None:
    source = ArraySource(glass(), damaged=(Box(0, 0, 1200, 900),))
    with pytest.raises(SlideError, match=r"^nothing of the slide can be decoded") as caught:
        overview(source, 8.0)
    assert not isinstance(caught.value, DamagedPixels)
    assert "not a JPEG" in caught.value.cause
    assert caught.value.remedy == "copy the slide again from its source"
