"""Which level is read at which resolution."""

from __future__ import annotations

import pytest

from wsi_nuc.errors import SlideError
from wsi_nuc.tiling.scale import choose_scale, grid_size
from wsi_nuc.types import Level, SlideInfo

PYRAMID = SlideInfo("array", "", 40_000, 30_001, (Level(40_000, 30_001, 1.0), Level(10_000, 7_500, 4.0)), None, "")


@pytest.mark.parametrize(
    ("mpp", "model_mpp", "level", "l0_per_grid"),
    [
        (0.25, 0.25, 0, 1.0),
        (0.2431, 0.25, 0, 1.0),
        (0.2570, 0.25, 0, 1.0),
        (0.25, 1.0, 1, 4.0),
        (0.2528, 1.0, 1, 4.0),
        (0.25, 0.5, 0, 2.0),
        (0.5, 0.25, 0, 0.5),
        (0.23, 0.25, 0, 0.25 / 0.23),
        (0.25, 2.0, 1, 8.0),
        (0.55, 0.25, 0, 0.25 / 0.55),
        (1.0, 0.25, 0, 0.25),
    ],
)
def test_the_coarsest_level_with_all_the_detail_is_read(
    mpp: float, model_mpp: float, level: int, l0_per_grid: float
) -> None:
    scale = choose_scale(PYRAMID, mpp, model_mpp)
    assert (scale.level, scale.l0_per_grid) == (level, pytest.approx(l0_per_grid))
    assert scale.native == (l0_per_grid in (1.0, 4.0))
    assert scale.grid_mpp == pytest.approx(mpp * l0_per_grid)
    assert abs(scale.grid_mpp / model_mpp - 1) <= 0.03 + 1e-9


def test_a_slide_too_coarse_for_the_model_is_refused_with_the_remedy() -> None:
    with pytest.raises(SlideError, match=r"^its 28\.97 um/px .*0\.25 um/px.*--mpp"):
        choose_scale(PYRAMID, 28.97, 0.25)


def test_a_partly_covered_last_pixel_belongs_to_the_grid() -> None:
    assert grid_size(PYRAMID, 4.0) == (10_000, 7_501)
    assert grid_size(PYRAMID, 1e6) == (1, 1)
