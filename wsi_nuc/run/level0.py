"""The one change of frame: nuclei of tiles become nuclei of the slide, valid and inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.tiling.gaps import Gap
from wsi_nuc.tiling.grid import TileGrid
from wsi_nuc.types import Bool, Float64, Int64, NucleiTable, SlideInfo, TileNuclei

# Level-0 coordinates are kept to 1/64 px (4 nm at 40x): far below any meaning, and such numbers compress well.
STEPS_PER_PX = 64


def to_level0(nuclei: TileNuclei, grid: TileGrid) -> NucleiTable:
    """Shift every ring by the origin of its tile's read box and scale it to level-0 pixels."""
    origin_grid = _read_origins(grid, nuclei.tile)
    xy_grid = nuclei.xy + np.repeat(origin_grid, nuclei.ring_lengths, axis=0)
    columns = {f.name: getattr(nuclei, f.name) for f in fields(nuclei)}
    columns["xy"] = rounded(xy_grid * grid.l0_per_grid)
    columns["prompt_xy"] = rounded((nuclei.prompt_xy + origin_grid) * grid.l0_per_grid)
    return NucleiTable(**columns)


def inside_and_valid(table: NucleiTable, info: SlideInfo) -> tuple[NucleiTable, Bool, int]:
    """Clip what overhangs the slide and mend what rounding broke.

    Returns the table, the rows that are left of the given one, and how many rings were changed.
    """
    polygons = _polygons(table)
    bounds = table.bounds()
    outside = (bounds[:, :2] < 0).any(axis=1) | (bounds[:, 2:] > (info.width, info.height)).any(axis=1)
    wrong = np.flatnonzero(outside | ~shapely.is_valid(polygons))
    if not len(wrong):
        return table, np.ones(len(table), np.bool_), 0
    slide = shapely.box(0, 0, info.width, info.height)
    polygons[wrong] = [
        _largest(shapely.intersection(shapely.make_valid(polygon), slide)) for polygon in polygons[wrong]
    ]
    kept: Bool = np.array([polygon is not None for polygon in polygons], np.bool_)
    return _with_rings(table.select(kept), polygons[kept]), kept, len(wrong)


def touching(table: NucleiTable, gaps: Mapping[int, Sequence[Gap]], margin_l0: float) -> Bool:
    """Which nuclei come within the margin of a gap (by tile) of their own tile."""
    found: Bool = np.zeros(len(table), np.bool_)
    for tile in sorted(set(gaps) & set(table.tile.tolist())):
        rows = np.flatnonzero(table.tile == tile)
        boxes = np.array([gap.box_l0 for gap in gaps[tile]])
        tree = shapely.STRtree(shapely.box(*boxes.T))
        near = tree.query(_polygons(table.select(rows)), predicate="dwithin", distance=margin_l0)[0]
        found[rows[near]] = True
    return found


def _polygons(table: NucleiTable) -> npt.NDArray[Any]:
    rings = shapely.linearrings(table.xy, indices=np.repeat(np.arange(len(table)), table.ring_lengths))
    polygons: npt.NDArray[Any] = shapely.polygons(rings)
    return polygons


def _read_origins(grid: TileGrid, tiles: Int64) -> Float64:
    row, col = np.divmod(tiles, grid.cols)
    return np.stack([col, row], axis=1) * float(grid.core_px) - grid.halo_px


def rounded(xy: Float64) -> Float64:
    return np.round(xy * STEPS_PER_PX) / STEPS_PER_PX


def _largest(geometry: Any) -> Any:
    """The largest polygon of a geometry without its holes, or None if nothing with an area is left."""
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon" and part.area > 0]
    parts += [
        polygon
        for part in shapely.get_parts(geometry)
        if part.geom_type in ("MultiPolygon", "GeometryCollection")
        for polygon in shapely.get_parts(part)
        if polygon.geom_type == "Polygon" and polygon.area > 0
    ]
    if not parts:
        return None
    return shapely.Polygon(max(parts, key=lambda part: part.area).exterior)


def _with_rings(table: NucleiTable, polygons: npt.NDArray[Any]) -> NucleiTable:
    rings = [shapely.get_coordinates(polygon)[:-1] for polygon in polygons]
    offsets = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]).astype(np.int64)
    xy = np.concatenate(rings) if rings else np.zeros((0, 2))
    return replace(table, xy=xy, offsets=offsets)
