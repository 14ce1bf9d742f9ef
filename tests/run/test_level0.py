"""The one change of frame: right place at any scale, valid, inside the slide."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from wsi_nuc.nuclei import NucleiTable, TileNuclei
from wsi_nuc.run.level0 import inside_and_valid, to_level0, touching
from wsi_nuc.tiling.gaps import Gap
from wsi_nuc.tiling.grid import TileGrid
from wsi_nuc.types import Level, SlideInfo


def _info(width: int, height: int) -> SlideInfo:
    return SlideInfo("image", "test", width, height, (Level(width, height, 1.0),), 0.25, "header")


def _columns(rings: list[np.ndarray], tiles: list[int]) -> dict[str, np.ndarray]:
    count = len(rings)
    ones = np.ones(count, np.float32)
    return {
        "xy": np.concatenate(rings).astype(float),
        "offsets": np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]).astype(np.int64),
        "prompt_xy": np.array([ring.mean(axis=0) for ring in rings]),
        "score": ones,
        "prompt_score": ones,
        "predicted_iou": ones,
        "class_probs": np.ones((count, 1), np.float32),
        "tile": np.array(tiles, np.int64),
    }


@given(
    scale=st.sampled_from([0.5, 0.7, 1.0, 1.05, 2.0, 3.3]),
    tile=st.integers(0, 24),
    x=st.floats(0, 90),
    y=st.floats(0, 90),
)
def test_a_ring_lands_where_its_tile_says(scale: float, tile: int, x: float, y: float) -> None:
    grid = TileGrid(500, 500, core_px=100, halo_px=20, l0_per_grid=scale)
    square_tile = np.add([[0, 0], [8, 0], [8, 8], [0, 8]], (x, y))
    table = to_level0(TileNuclei(**_columns([square_tile], [tile])), grid)
    box = grid.tile(tile).read_box
    expected_l0 = np.add(square_tile, (box.x0, box.y0)) * scale
    assert np.abs(table.xy - expected_l0).max() <= 1 / 128
    assert np.abs(table.prompt_xy - expected_l0.mean(axis=0)).max() <= 1 / 128


@given(st.floats(-12, 212), st.floats(-12, 112), st.floats(3, 20))
def test_what_overhangs_is_clipped_and_what_is_outside_goes(x: float, y: float, edge: float) -> None:
    ring = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * edge + (x, y)
    inner = np.array([[50, 50], [60, 50], [60, 60], [50, 60]])
    given_table = NucleiTable(**_columns([ring, inner], [0, 0]))
    table, kept, changed = inside_and_valid(given_table, _info(200, 100))
    slide = shapely.box(0, 0, 200, 100)
    expected = shapely.intersection(shapely.Polygon(ring), slide).area
    assert kept.tolist() == [expected > 0, True]
    assert changed == (not slide.covers(shapely.Polygon(ring)))
    polygons = [
        shapely.Polygon(table.xy[start:stop])
        for start, stop in zip(table.offsets, table.offsets[1:], strict=False)
    ]
    assert all(polygon.is_valid and slide.covers(polygon) for polygon in polygons)
    assert sum(polygon.area for polygon in polygons) == pytest.approx(expected + 100)


def test_a_ring_that_crosses_itself_is_mended_and_counted() -> None:
    bow_tie = np.array([[10.0, 10], [20, 20], [20, 10], [10, 20]])
    table, kept, changed = inside_and_valid(NucleiTable(**_columns([bow_tie], [0])), _info(100, 100))
    assert kept.all()
    assert changed == 1
    assert shapely.Polygon(table.xy).is_valid


@given(st.floats(0, 60), st.floats(0, 60), st.sampled_from([0.0, 4.0]))
def test_a_nucleus_is_cut_by_gaps_that_are_near_and_of_its_own_tile(x: float, y: float, margin: float) -> None:
    ring = np.add([[0, 0], [8, 0], [8, 8], [0, 8]], (x, y))
    table = NucleiTable(**_columns([ring, ring, ring], [3, 4, 5]))
    gap = Gap((30.0, 20.0, 50.0, 40.0), "damaged", "why")
    far = Gap((900.0, 900.0, 950.0, 950.0), "missing", "why")
    near = shapely.dwithin(shapely.Polygon(ring), gap.polygon, margin)
    assert touching(table, {3: (far, gap), 5: (far,)}, margin).tolist() == [near, False, False]
    assert touching(table.select(np.zeros(0, np.int64)), {3: (gap,)}, margin).tolist() == []
