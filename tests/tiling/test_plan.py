"""What a plan refuses, says and costs."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import shapely

from wsi_nuc.models.base import ModelSpec
from wsi_nuc.tiling.plan import TilePlan, make_plan
from wsi_nuc.tissue.area import whole
from wsi_nuc.types import Level, SlideInfo

SPEC = ModelSpec("toy", ("nucleus",), 0.25, 256, 64, 48, 8, 8, "")
LARGE = SlideInfo("array", "", 100_000, 100_000, (Level(100_000, 100_000, 1.0),), None, "")


def plan_of(area: object, mpp: float = 0.25, region_size: int = 4096) -> TilePlan:
    return make_plan(LARGE, mpp, SPEC, area, region_size)


def test_an_empty_area_plans_nothing_and_still_prints() -> None:
    plan = plan_of(shapely.MultiPolygon())
    assert plan.planned_tiles == 0
    assert list(plan.tasks()) == []
    assert "0 planned, 152881 background" in str(plan)


def test_the_printed_plan_names_grid_level_tiles_and_regions() -> None:
    text = str(plan_of(whole(LARGE.box_l0), mpp=0.3))
    for words in ("469 x 469 tiles of 256 px", "0.25 um/px", "level 0", "resampled 1.2x", "219961 planned"):
        assert words in text


def test_a_task_stays_small_beside_the_whole_plan() -> None:
    angles = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    ripple = 45_000 + 300 * np.sin(400 * angles)
    disc = shapely.Polygon(50_000 + np.stack([np.cos(angles), np.sin(angles)], 1) * ripple[:, None])
    sizes = [len(pickle.dumps(task)) for task in plan_of(shapely.MultiPolygon([disc])).tasks()]
    assert max(sizes) < 64 * 1024


@pytest.mark.parametrize(("mpp", "model_mpp"), [(0.25, 0.25), (0.25, 1.0), (0.5, 0.25)])
def test_a_region_never_holds_more_than_about_the_asked_pixels(mpp: float, model_mpp: float) -> None:
    plan = make_plan(LARGE, mpp, replace(SPEC, mpp=model_mpp), whole(LARGE.box_l0), 4096)
    assert plan.estimated_bytes() < 4 * 4096**2 * 4
    for task, _ in zip(plan.tasks(), range(3), strict=False):
        assert task.level_box(task.region.read_box).area <= 1.3 * 4096**2


def test_different_plans_have_different_digests() -> None:
    areas = [whole(LARGE.box_l0), shapely.MultiPolygon([shapely.box(0, 0, 99_000, 100_000)])]
    assert len({plan_of(area, region_size=size).digest() for area in areas for size in (2048, 4096)}) == 4
