"""Convex hulls of many rings, and the largest and smallest width of each, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.rings import Edges, Rings
from wsi_nuc.types import Float64, Int64

_TURN = 2 * np.pi
_APART = 8.0  # more than a turn: angles of one ring never mix with those of the next


@dataclass(frozen=True, slots=True)
class Hulls:
    """N each, in the unit of the rings; NaN where a ring is flat."""

    area: Float64
    perimeter: Float64
    feret_max: Float64
    feret_min: Float64


def hulls(rings: Rings) -> Hulls:
    polygons = shapely.convex_hull(rings.linear_rings())
    solid = np.flatnonzero(shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON)
    columns = np.full((4, len(rings)), np.nan)
    if len(solid):
        columns[:, solid] = _measured(polygons[solid])
    return Hulls(*columns)


def _measured(polygons: npt.NDArray[np.object_]) -> Float64:
    """4 x N."""
    # Normalised rings begin at their leftmost vertex and run clockwise for y up: edges ascend from "up".
    rings = Rings.of_polygons(shapely.normalize(polygons))
    edges = rings.edges()
    widths, spans = _opposite(edges, rings.ring_lengths)
    return np.stack(
        [
            np.abs(edges.sum(edges.cross)) / 2,
            edges.sum(edges.length),
            np.maximum.reduceat(spans, edges.starts),
            np.minimum.reduceat(widths, edges.starts),
        ]
    )


def _opposite(edges: Edges, counts: Int64) -> tuple[Float64, Float64]:
    """For each edge the distance of its line to the vertex on the far side, and the farther of that vertex and the
    next one from the edge's first end: rotating calipers, all hulls in one search.

    The far vertex begins the first edge that has turned by half a circle or more.
    """
    dx, dy = edges.next_x - edges.x, edges.next_y - edges.y
    angle = np.arctan2(dx, dy) % _TURN
    base, first = edges.ring * _APART, edges.starts[edges.ring]
    place = np.searchsorted(base + angle, base + (angle + np.pi) % _TURN) - first
    far = first + place % counts[edges.ring]
    to_x, to_y = edges.x[far] - edges.x, edges.y[far] - edges.y
    widths = np.abs(dx * to_y - dy * to_x) / edges.length
    other = np.hypot(edges.next_x[far] - edges.x, edges.next_y[far] - edges.y)
    return widths, np.maximum(np.hypot(to_x, to_y), other)
