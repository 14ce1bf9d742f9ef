"""The low-resolution view stays within its pixels, whatever the pyramid."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from wsi_nuc.tissue.overview import MOST_PIXELS, choose_view
from wsi_nuc.types import Level, SlideInfo

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
