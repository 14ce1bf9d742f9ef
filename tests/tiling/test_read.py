"""The pixels of tiles: where they come from, and what becomes of damaged and missing data."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
import shapely

from tests.tiling.scenes import ArraySource
from wsi_nuc.errors import SlideError
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.tiling.area import whole
from wsi_nuc.tiling.plan import TilePlan, make_plan
from wsi_nuc.tiling.read import TilePixels, read_region
from wsi_nuc.types import Box, PixelBlock, UInt8

SPEC = ModelSpec("toy", ("nucleus",), 0.25, 64, 24, 16, 4, 8, "")


def plan_for(source: ArraySource, l0_per_grid: float = 1.0, area: object = None) -> TilePlan:
    chosen = whole(source.info.box_l0) if area is None else area
    return make_plan("toy", source.info, SPEC.mpp / l0_per_grid, SPEC, chosen, 200)


def read_all(source: ArraySource, plan: TilePlan) -> list[TilePixels]:
    return [tile for task in plan.tasks() for tile in read_region(source, task)]


def noise(height: int = 300, width: int = 340) -> UInt8:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@functools.cache
def disc(centre_l0: tuple[float, float], radius_l0: float, size: int = 420) -> UInt8:
    """A black disc on white, each pixel the mean of 8 x 8 samples; coordinates run from the pixels' corners."""
    y, x = (np.indices((size * 8, size * 8)) + 0.5) / 8
    inside = np.hypot(x - centre_l0[0], y - centre_l0[1]) < radius_l0
    share = cv2.resize(inside.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return np.repeat(((1 - share) * 255).round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("downsamples", [(1,), (1, 2), (1, 4)])
@pytest.mark.parametrize("l0_per_grid", [0.5, 0.7, 1.0, 1.05, 2.0, 3.3, 4.0])
def test_what_is_seen_in_a_tile_lies_there_in_level_0(l0_per_grid: float, downsamples: tuple[int, ...]) -> None:
    centre = np.array([203.3, 187.8])
    source = ArraySource(disc((203.3, 187.8), 10.0), downsamples)
    plan = plan_for(source, l0_per_grid)
    owner = int(plan.grid.tile_at(centre[None] / l0_per_grid)[0])
    tile = next(t for t in read_all(source, plan) if t.tile.index == owner)
    ink = 255.0 - tile.rgb[..., 0]
    y, x = np.indices(ink.shape) + 0.5
    xy_tile = np.array([(x * ink).sum(), (y * ink).sum()]) / ink.sum()
    origin_grid = np.array([tile.tile.read_box.x0, tile.tile.read_box.y0])
    xy_l0 = (xy_tile + origin_grid) * plan.grid.l0_per_grid
    assert np.abs(xy_l0 - centre).max() < 0.1 * max(1.0, l0_per_grid)
    area_l0 = ink.sum() / 255 * plan.grid.l0_per_grid**2
    assert area_l0 == pytest.approx(np.pi * 10**2, rel=0.02)


def test_native_pixels_are_the_slide_s_own_and_white_outside() -> None:
    source = ArraySource(noise())
    framed = np.full((300 + 400, 340 + 400, 3), 255, np.uint8)
    framed[200:500, 200:540] = source.levels[0]
    for tile in read_all(source, plan_for(source)):
        box = tile.tile.read_box.shift(200, 200)
        np.testing.assert_array_equal(tile.rgb, framed[box.y0 : box.y1, box.x0 : box.x1])


def test_a_fine_pattern_does_not_alias_when_it_is_shrunk() -> None:
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    source = ArraySource(stripes)
    tile = read_all(source, plan_for(source, 2.9))[0]
    assert tile.rgb[30:80, 30:80].std() < 12


def test_each_region_is_decoded_once() -> None:
    source = ArraySource(noise())
    plan = plan_for(source, 1.3)
    read_all(source, plan)
    assert len(source.reads) == sum(1 for _ in plan.regions())


@pytest.mark.parametrize("l0_per_grid", [1.0, 1.3])
def test_a_damaged_spot_costs_only_the_tiles_that_need_it(l0_per_grid: float) -> None:
    rgb, spot = noise(), Box(150, 140, 156, 150)
    good = read_all(ArraySource(rgb), plan_for(ArraySource(rgb), l0_per_grid))
    source = ArraySource(rgb, damaged=(spot,))
    plan = plan_for(source, l0_per_grid)
    needed = {t.index: task.level_box(t.read_box) for task in plan.tasks() for t in task.tiles()}
    for tile, whole_tile in zip(read_all(source, plan), good, strict=True):
        if needed[tile.tile.index].intersect(spot).area:
            assert (tile.status, tile.rgb, tile.cause) == ("failed", None, "the tile data are not a JPEG")
        else:
            assert tile.status == "ok"
            np.testing.assert_array_equal(tile.rgb, whole_tile.rgb)


def test_other_errors_are_the_slide_s_and_not_a_tile_s() -> None:
    class Gone(ArraySource):
        def read(self, level: int, box: Box) -> PixelBlock:
            raise SlideError("slide", "it was deleted")

    source = Gone(noise())
    with pytest.raises(SlideError, match="deleted"):
        read_all(source, plan_for(source))


@pytest.mark.parametrize("l0_per_grid", [1.0, 1.6])
def test_missing_data_in_a_core_is_told_and_in_a_halo_is_not(l0_per_grid: float) -> None:
    missing = np.zeros((300, 340), np.bool_)
    missing[110:116, 70:80] = True
    source = ArraySource(noise(), missing=missing)
    plan = plan_for(source, l0_per_grid)
    owner = int(plan.grid.tile_at(np.array([[75.0, 113.0]]) / l0_per_grid)[0])
    status = {tile.tile.index: tile.status for tile in read_all(source, plan)}
    assert [index for index, said in status.items() if said == "missing"] == [owner]


def test_a_core_without_any_data_has_no_pixels() -> None:
    missing = np.zeros((300, 340), np.bool_)
    missing[64:128, 64:128] = True
    source = ArraySource(noise(), missing=missing)
    told = [tile for tile in read_all(source, plan_for(source)) if tile.status == "missing"]
    assert [(tile.tile.core_box, tile.rgb) for tile in told] == [(Box(64, 64, 128, 128), None)]
    assert "100%" in told[0].cause


def test_missing_data_off_the_area_does_not_matter() -> None:
    missing = np.zeros((300, 340), np.bool_)
    missing[64:128, 64:100] = True
    source = ArraySource(noise(), missing=missing)
    area = shapely.MultiPolygon([shapely.box(101, 64, 300, 300)])
    assert {tile.status for tile in read_all(source, plan_for(source, area=area))} == {"ok"}
