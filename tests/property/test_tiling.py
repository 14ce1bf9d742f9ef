"""Invariants of the tile grid, the plan and the pixels of a tile, for any slide, model and region size."""

from __future__ import annotations

import json
import pickle

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiling.scenes import ArraySource
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.tiling.grid import TileGrid
from wsi_nuc.tiling.plan import TilePlan, make_plan, tiles_in
from wsi_nuc.tiling.read import read_region
from wsi_nuc.tissue.area import MOST_VERTICES, inside, pieces
from wsi_nuc.types import Box, Level, SlideInfo

edges = st.integers(1, 900)
seeds = st.integers(0, 2**32 - 1)
calm = settings(deadline=None, max_examples=40)


def spec(core: int = 64, halo: int = 24, mpp: float = 0.25) -> ModelSpec:
    return ModelSpec("toy", ("nucleus",), mpp, core, halo, halo - 4, 4, 8, "")


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    core, halo = draw(st.integers(8, 200)), draw(st.integers(0, 60))
    return TileGrid(draw(edges), draw(edges), core, halo, draw(st.floats(0.3, 8)))


@st.composite
def areas(draw: st.DrawFn, extent: int = 900) -> shapely.MultiPolygon:
    """Stars of many vertices, overlapping or apart. Some have a hole, and some reach beyond the slide."""
    rng = np.random.default_rng(draw(seeds))
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        angles = np.sort(rng.uniform(0, 2 * np.pi, draw(st.integers(3, 500))))
        radii = rng.uniform(0.4, 1, len(angles)) * rng.uniform(5, extent / 2)
        xy = rng.uniform(0, extent, 2) + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
        star = shapely.make_valid(shapely.Polygon(xy))
        parts.append(star.difference(star.centroid.buffer(radii.min() / 3)))
    return shapely.MultiPolygon(
        [p for p in shapely.get_parts(shapely.union_all(parts)) if p.geom_type == "Polygon"]
    )


def within(inner: Box, outer: Box) -> bool:
    return outer.intersect(inner) == inner


def slide(width: int, height: int, *downsamples: float) -> SlideInfo:
    levels = tuple(Level(int(width // d), int(height // d), d) for d in (1.0, *downsamples))
    return SlideInfo("array", "", width, height, levels, None, "")


@calm
@given(grids())
def test_cores_partition_the_grid(grid: TileGrid) -> None:
    owners = np.zeros((grid.height_grid, grid.width_grid), np.int64)
    for index in range(grid.tiles):
        core = grid.tile(index).core_box
        assert core.area > 0
        owners[core.y0 : core.y1, core.x0 : core.x1] += 1
    assert (owners == 1).all()


@calm
@given(grids(), seeds)
def test_a_point_belongs_to_the_one_core_that_holds_it(grid: TileGrid, seed: int) -> None:
    size = np.array([grid.width_grid, grid.height_grid])
    xy = np.random.default_rng(seed).uniform(-20, size + 20, (50, 2))
    xy = np.vstack([xy, np.floor(xy), [[0, 0], size]])
    cores = [grid.tile(index).core_box for index in range(grid.tiles)]
    x0, y0, x1, y1 = np.array([(c.x0, c.y0, c.x1, c.y1) for c in cores]).T
    x, y = xy[:, :1], xy[:, 1:]
    holds = (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
    owner = grid.tile_at(xy)
    np.testing.assert_array_equal(holds.sum(axis=1), owner >= 0)
    np.testing.assert_array_equal(np.nonzero(holds)[1], owner[owner >= 0])


@calm
@given(grids())
def test_every_read_box_has_one_shape_and_covers_core_and_halo(grid: TileGrid) -> None:
    tiles = [grid.tile(index) for index in range(grid.tiles)]
    assert {(t.read_box.width, t.read_box.height) for t in tiles} == {(grid.read_px, grid.read_px)}
    assert all(within(t.core_box.grow(grid.halo_px), t.read_box) for t in tiles)


@calm
@given(grids())
def test_level_0_boxes_are_the_cores_scaled(grid: TileGrid) -> None:
    boxes = grid.core_boxes_l0(np.arange(grid.tiles))
    cores = [grid.tile(index).core_box for index in range(grid.tiles)]
    expected = np.array([(c.x0, c.y0, c.x1, c.y1) for c in cores]) * grid.l0_per_grid
    np.testing.assert_array_equal(boxes, expected)


@calm
@given(grids(), st.integers(1, 12), seeds)
def test_regions_partition_the_planned_tiles(grid: TileGrid, per_region: int, seed: int) -> None:
    planned = np.random.default_rng(seed).random((grid.rows, grid.cols)) < 0.4
    regions = list(grid.regions(per_region, planned))
    listed = [tile for region in regions for tile in region.tiles]
    assert sorted(listed) == np.flatnonzero(planned).tolist()
    assert len({region.index for region in regions}) == len(regions)
    for region in regions:
        assert all(within(grid.tile(t).core_box, region.core_box) for t in region.tiles)
        assert all(within(grid.tile(t).read_box, region.read_box) for t in region.tiles)


@calm
@given(grids(), st.integers(1, 12))
def test_nothing_is_read_twice_beyond_the_halo(grid: TileGrid, per_region: int) -> None:
    reads = np.zeros((grid.height_grid, grid.width_grid), np.int64)
    for region in grid.regions(per_region, np.ones((grid.rows, grid.cols), np.bool_)):
        core = region.read_box.grow(-grid.halo_px).intersect(grid.box_grid)
        reads[core.y0 : core.y1, core.x0 : core.x1] += 1
        assert region.read_box.area <= (per_region * grid.core_px + 2 * grid.halo_px) ** 2
    assert (reads == 1).all()


@calm
@given(grids(), areas())
def test_planned_tiles_are_those_whose_core_meets_the_area(grid: TileGrid, area: shapely.MultiPolygon) -> None:
    boxes = shapely.box(*grid.core_boxes_l0(np.arange(grid.tiles)).T)
    expected = shapely.intersects(area, boxes)
    np.testing.assert_array_equal(tiles_in(area, grid).ravel(), expected)


@calm
@given(areas(), seeds)
def test_cutting_the_area_up_changes_no_answer(area: shapely.MultiPolygon, seed: int) -> None:
    cut = pieces(area)
    assert all(shapely.get_num_coordinates(piece) <= MOST_VERTICES for piece in cut)
    assert np.isclose(sum(piece.area for piece in cut), area.area)
    xy = np.random.default_rng(seed).uniform(-50, 950, (500, 2))
    np.testing.assert_array_equal(inside(cut, xy), shapely.intersects_xy(area, xy[:, 0], xy[:, 1]))


@calm
@given(areas(), st.integers(60, 400), st.integers(60, 400), seeds)
def test_every_region_size_gives_a_point_the_same_answer(
    area: shapely.MultiPolygon, small: int, large: int, seed: int
) -> None:
    info, xy = slide(900, 900), np.random.default_rng(seed).uniform(0, 900, (200, 2))
    # A different cut would show at points right on the border.
    xy = np.vstack([xy, np.clip(shapely.get_coordinates(area), 0, 899)])
    answers = []
    for region_size in (small, large):
        plan = make_plan(info, 0.25, spec(), area, region_size)
        owner, kept = plan.grid.tile_at(xy), np.zeros(len(xy), np.bool_)
        for task in plan.tasks():
            rows = np.flatnonzero(np.isin(owner, task.region.tiles))
            kept[rows] = task.inside(xy[rows])
        answers.append(kept)
    np.testing.assert_array_equal(*answers)
    np.testing.assert_array_equal(answers[0][:200], shapely.intersects_xy(area, xy[:200, 0], xy[:200, 1]))


@calm
@given(edges, edges, areas(), st.floats(0.1, 0.9), st.integers(1, 700))
def test_a_plan_accounts_for_every_tile_and_survives_json_and_pickle(
    width: int, height: int, area: shapely.MultiPolygon, mpp: float, region_size: int
) -> None:
    plan = make_plan(slide(width, height), mpp, spec(), area, region_size)
    assert plan.planned_tiles + plan.background_tiles == plan.grid.tiles
    assert sum(len(task.region.tiles) for task in plan.tasks()) == plan.planned_tiles
    again = TilePlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again.digest() == plan.digest() == pickle.loads(pickle.dumps(plan)).digest()
    assert shapely.equals_exact(again.area, plan.area)


@calm
@given(seeds, st.sampled_from([0.13, 0.25, 0.26, 0.37, 0.5]), st.integers(1, 300), st.integers(1, 300))
def test_a_tile_has_the_same_pixels_whatever_region_it_is_read_with(
    seed: int, mpp: float, small: int, large: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (int(rng.integers(40, 260)), int(rng.integers(40, 260)), 3), np.uint8)
    source, area = ArraySource(rgb, (1, 2)), shapely.MultiPolygon([shapely.box(0, 0, 400, 400)])
    seen = []
    for region_size in (small, large):
        plan = make_plan(source.info, mpp, spec(48, 16), area, region_size)
        seen.append({t.tile: t.rgb for task in plan.tasks() for t in read_region(source, task)})
    assert seen[0].keys() == seen[1].keys()
    for tile, pixels in seen[0].items():
        assert pixels.shape == (80, 80, 3)
        np.testing.assert_array_equal(pixels, seen[1][tile])
