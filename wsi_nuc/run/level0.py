"""The one change of frame: nuclei of tiles become nuclei of the slide, valid and inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import shapely

from wsi_nuc.nuclei import NucleiTable, TileNuclei
from wsi_nuc.rings import Rings, largest_polygons
from wsi_nuc.tiling.gaps import Gap
from wsi_nuc.tiling.grid import TileGrid
from wsi_nuc.types import Bool, Float64, Int64, SlideInfo

# Level-0 coordinates are kept to 1/64 px (4 nm at 40x): far below any meaning, and such numbers compress well.
STEPS_PER_PX = 64


def to_level0(nuclei: TileNuclei, grid: TileGrid) -> NucleiTable:
    """Shift every ring by the origin of its tile's read box and scale it to level-0 pixels."""
    origin_grid = _read_origins(grid, nuclei.tile)
    xy_grid = nuclei.xy + nuclei.spread(origin_grid)
    return replace(
        NucleiTable.framed(nuclei),
        xy=rounded(xy_grid * grid.l0_per_grid),
        prompt_xy=rounded((nuclei.prompt_xy + origin_grid) * grid.l0_per_grid),
    )


def inside_and_valid(table: NucleiTable, info: SlideInfo) -> tuple[NucleiTable, Bool, int]:
    """Clip what overhangs the slide and mend what rounding broke.

    Returns the table, the rows that are left of the given one, and how many rings were changed.
    """
    polygons = table.polygons()
    bounds = table.bounds()
    outside = (bounds[:, :2] < 0).any(axis=1) | (bounds[:, 2:] > (info.width, info.height)).any(axis=1)
    wrong = np.flatnonzero(outside | ~shapely.is_valid(polygons))
    if not len(wrong):
        return table, np.ones(len(table), np.bool_), 0
    slide = shapely.box(0, 0, info.width, info.height)
    polygons[wrong] = largest_polygons(shapely.intersection(shapely.make_valid(polygons[wrong]), slide))
    kept: Bool = ~shapely.is_missing(polygons)
    rings = Rings.of_polygons(polygons[kept])
    return replace(table.select(kept), xy=rings.xy, offsets=rings.offsets), kept, len(wrong)


def touching(table: NucleiTable, gaps: Mapping[int, Sequence[Gap]], margin_l0: float) -> Bool:
    """Which nuclei come within the margin of a gap (by tile) of their own tile."""
    touches: Bool = np.zeros(len(table), np.bool_)
    for tile in sorted(set(gaps) & set(table.tile.tolist())):
        rows = np.flatnonzero(table.tile == tile)
        boxes = np.array([gap.box_l0 for gap in gaps[tile]])
        tree = shapely.STRtree(shapely.box(*boxes.T))
        near = tree.query(table.select(rows).polygons(), predicate="dwithin", distance=margin_l0)[0]
        touches[rows[near]] = True
    return touches


def _read_origins(grid: TileGrid, tiles: Int64) -> Float64:
    row, col = np.divmod(tiles, grid.cols)
    return np.stack([col, row], axis=1) * float(grid.core_px) - grid.halo_px


def rounded(xy: Float64) -> Float64:
    return np.round(xy * STEPS_PER_PX) / STEPS_PER_PX
