"""The area in which nuclei are kept: polygons in level-0 pixels, cut up once so that tasks stay small.

The cuts depend on the polygons alone. So does the answer to "is this point inside", to the last bit, whichever
region asks: a nucleus on the border of the area is the same for every region size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from wsi_nuc.types import Bool, Box, Float64

MOST_VERTICES = 256


def whole(box: Box) -> Any:
    """The box as a MultiPolygon."""
    return shapely.MultiPolygon([shapely.box(box.x0, box.y0, box.x1, box.y1)])


def polygons_only(geometry: Any) -> Any:
    """The polygons of any valid geometry as one valid MultiPolygon, lines and points left out."""
    parts = shapely.get_parts(shapely.get_parts(np.atleast_1d(geometry)))
    areas = parts[shapely.get_dimensions(parts) == 2]
    merged = shapely.union_all(areas) if len(areas) else shapely.MultiPolygon()
    rings = shapely.get_parts(merged)
    return shapely.MultiPolygon([ring for ring in rings if ring.geom_type == "Polygon" and ring.area > 0])


def pieces(area: Any, most_vertices: int = MOST_VERTICES) -> list[Any]:
    """The area as polygons of few vertices, by halving those with more until none is left."""
    todo, done = list(shapely.get_parts(area)), []
    while todo:
        polygon = todo.pop()
        x0, y0, x1, y1 = shapely.bounds(polygon)
        # Vertices that crowd within one pixel cannot be separated usefully.
        if shapely.get_num_coordinates(polygon) <= most_vertices or max(x1 - x0, y1 - y0) <= 1:
            done.append(polygon)
            continue
        for half in _halves(x0, y0, x1, y1):
            todo.extend(shapely.get_parts(polygons_only(shapely.intersection(polygon, half))))
    return done


def inside(area_pieces: Sequence[Any], xy_l0: Float64) -> Bool:
    """Which of the points (N x 2) lie in a piece or on its border."""
    is_inside = np.zeros(len(xy_l0), np.bool_)
    for piece in area_pieces:
        shapely.prepare(piece)
        rest = np.flatnonzero(~is_inside)
        is_inside[rest] = shapely.intersects_xy(piece, xy_l0[rest, 0], xy_l0[rest, 1])
    return is_inside


def _halves(x0: float, y0: float, x1: float, y1: float) -> tuple[Any, Any]:
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    if x1 - x0 > y1 - y0:
        return shapely.box(x0, y0, x, y1), shapely.box(x, y0, x1, y1)
    return shapely.box(x0, y0, x1, y), shapely.box(x0, y, x1, y1)
