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
from wsi_nuc.tiling.plan import TilePlan, make_plan
from wsi_nuc.tiling.read import TilePixels, read_region
from wsi_nuc.tissue.area import whole
from wsi_nuc.types import Box, PixelBlock, UInt8

SPEC = ModelSpec("toy", ("nucleus",), 0.25, 64, 24, 16, 4, 8, "")


def plan_for(source: ArraySource, l0_per_grid: float = 1.0, area: object = None) -> TilePlan:
    chosen = whole(source.info.box_l0) if area is None else area
    return make_plan(source.info, SPEC.mpp / l0_per_grid, SPEC, chosen, 200)


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


def painted(rgb: UInt8, boxes: tuple[Box, ...]) -> UInt8:
    """White where the boxes are."""
    out = rgb.copy()
    for box in boxes:
        out[box.y0 : box.y1, box.x0 : box.x1] = 255
    return out


@pytest.mark.parametrize("block", [64, 40, 16, 1000])
@pytest.mark.parametrize("l0_per_grid", [1.0, 1.3])
def test_a_damaged_spot_costs_the_block_of_the_file_and_nothing_else(l0_per_grid: float, block: int) -> None:
    rgb = noise()
    source = ArraySource(rgb, damaged=(Box(150, 140, 156, 150),), block=block)
    shown, plan = ArraySource(painted(rgb, source.damaged)), plan_for(source, l0_per_grid)
    whole_slide = box_of(source.info.box_l0)
    lost = shapely.intersection(shapely.union_all([box_of(one) for one in source.damaged]), whole_slide)
    told = []
    for tile, wanted in zip(read_all(source, plan), read_all(shown, plan_for(shown, l0_per_grid)), strict=True):
        core = whole_slide & shapely.box(*plan.grid.core_boxes_l0(np.array([tile.tile.index]))[0])
        if tile.rgb is None:
            assert (tile.status, tile.cause) == ("failed", "the tile data are not a JPEG")
            told.append(core)
        else:
            assert tile.status == "ok"
            np.testing.assert_array_equal(tile.rgb, wanted.rgb)
            told += [place.polygon for place in tile.places]
            assert {(one.kind, one.cause) for one in tile.places} <= {("damaged", "the tile data are not a JPEG")}
    assert shapely.union_all(told).symmetric_difference(lost).area < 1e-6
    assert sum(one.area for one in told) == pytest.approx(lost.area)


def box_of(box: Box) -> shapely.Polygon:
    return shapely.box(box.x0, box.y0, box.x1, box.y1)


@pytest.mark.parametrize("l0_per_grid", [1.0, 1.3])
def test_what_a_tile_gets_does_not_depend_on_the_regions(l0_per_grid: float) -> None:
    missing = np.zeros((300, 340), np.bool_)
    missing[200:240, 30:170] = True
    spots = (Box(150, 140, 156, 150), Box(10, 290, 11, 291), Box(330, 0, 340, 40))
    told = []
    for region_size in (1, 100, 200, 5000):
        source = ArraySource(noise(), missing=missing, damaged=spots, block=40)
        plan = make_plan(source.info, SPEC.mpp / l0_per_grid, SPEC, whole(source.info.box_l0), region_size)
        tiles = sorted(read_all(source, plan), key=lambda tile: tile.tile.index)
        told.append(
            [
                (tile.status, tile.gaps, tile.places, None if tile.rgb is None else tile.rgb.tobytes())
                for tile in tiles
            ]
        )
    assert all(one == told[0] for one in told)


def test_damage_off_the_area_does_not_matter_but_what_it_cuts_is_known() -> None:
    source = ArraySource(noise(), damaged=(Box(70, 70, 71, 71),))
    area = shapely.MultiPolygon([shapely.box(130, 64, 300, 300)])
    tiles = read_all(source, plan_for(source, area=area))
    assert {tile.status for tile in tiles} == {"ok"}
    assert [tile.places for tile in tiles if tile.places] == []
    assert any(tile.gaps for tile in tiles)


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
    (place,) = [place for tile in read_all(source, plan) for place in tile.places]
    assert (place.kind, place.box_l0) == ("missing", (70.0, 110.0, 80.0, 116.0))


def test_a_core_without_any_data_has_no_pixels() -> None:
    missing = np.zeros((300, 340), np.bool_)
    missing[64:128, 64:128] = True
    source = ArraySource(noise(), missing=missing)
    told = [tile for tile in read_all(source, plan_for(source)) if tile.status == "missing"]
    assert [(tile.tile.core_box, tile.rgb) for tile in told] == [(Box(64, 64, 128, 128), None)]
    assert "no data" in told[0].cause


def test_missing_data_off_the_area_does_not_matter() -> None:
    missing = np.zeros((300, 340), np.bool_)
    missing[64:128, 64:100] = True
    source = ArraySource(noise(), missing=missing)
    area = shapely.MultiPolygon([shapely.box(101, 64, 300, 300)])
    assert {tile.status for tile in read_all(source, plan_for(source, area=area))} == {"ok"}
