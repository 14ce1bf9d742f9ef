"""Shape of polygons, exactly and without pixels: integrals along the outline, and widths of the convex hull."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.rings import Edges, Rings
from wsi_nuc.types import Float64, Int64

_TURN = 2 * np.pi
_APART = 8.0  # more than a full turn, so that the angles of one ring never mix with those of the next
Columns = dict[str, Float64]


def shape_features(rings_um: Rings) -> Columns:
    """Column name -> N values."""
    edges = rings_um.edges()
    area, centre, moments = _moments(edges)
    perimeter = edges.sum(edges.length)
    hull = hulls(rings_um)
    x0, y0, x1, y1 = rings_um.bounds().T
    return {
        "area_um2": area,
        "perimeter_um": perimeter,
        "equivalent_diameter_um": np.sqrt(4 * area / np.pi),
        **_ellipse(*moments),
        "extent": ratio(area, (x1 - x0) * (y1 - y0)),
        "solidity": ratio(area, hull.area),
        "convexity": ratio(hull.perimeter, perimeter),
        "circularity": ratio(4 * np.pi * area, perimeter**2),
        "feret_max_um": hull.feret_max,
        "feret_min_um": hull.feret_min,
        **_radii(edges, centre, perimeter),
    }


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Float64:
    """part / whole, NaN where the whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole != 0, part / whole, np.nan)


def _moments(edges: Edges) -> tuple[Float64, tuple[Float64, Float64], tuple[Float64, Float64, Float64]]:
    """Area, centroid relative to the rings' origins, and central second moments xx, yy, xy over the area."""
    x, y, u, v = edges.x, edges.y, edges.next_x, edges.next_y
    cross = edges.cross
    signed = edges.sum(cross) / 2
    cx, cy = (ratio(edges.sum((a + b) * cross), 6 * signed) for a, b in ((x, u), (y, v)))
    xx, yy = (ratio(edges.sum((a * a + a * b + b * b) * cross), 12 * signed) for a, b in ((x, u), (y, v)))
    xy = ratio(edges.sum((x * v + 2 * x * y + 2 * u * v + u * y) * cross), 24 * signed)
    return np.abs(signed), (cx, cy), (xx - cx * cx, yy - cy * cy, xy - cx * cy)


def _ellipse(xx: Float64, yy: Float64, xy: Float64) -> Columns:
    """The ellipse with these second moments: its axes are four times the roots of their eigenvalues."""
    middle, gap = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    long, short = middle + gap, np.maximum(middle - gap, 0)
    return {
        "major_axis_um": 4 * np.sqrt(long),
        "minor_axis_um": 4 * np.sqrt(short),
        "eccentricity": np.sqrt(np.maximum(1 - ratio(short, long), 0)),
        "orientation_rad": np.arctan2(2 * xy, xx - yy) / 2,
    }


def _radii(edges: Edges, centre: tuple[Float64, Float64], perimeter: Float64) -> Columns:
    """Distance of the outline from the centroid, averaged along it, each edge by Simpson's rule."""
    cx, cy = (side[edges.ring] for side in centre)
    begin, end = np.hypot(edges.x - cx, edges.y - cy), np.hypot(edges.next_x - cx, edges.next_y - cy)
    middle = np.hypot((edges.x + edges.next_x) / 2 - cx, (edges.y + edges.next_y) / 2 - cy)
    mean = ratio(edges.sum((begin + 4 * middle + end) / 6 * edges.length), perimeter)
    square = ratio(edges.sum((begin**2 + 4 * middle**2 + end**2) / 6 * edges.length), perimeter)
    return {"radius_mean_um": mean, "radius_sd_um": np.sqrt(np.maximum(square - mean**2, 0))}


@dataclass(frozen=True, slots=True)
class Hulls:
    """Convex hulls of N rings: N values each, in the unit of the rings; NaN where a ring is flat."""

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
    """Rotating calipers, for all hulls in one search.

    For each edge, the distance of its line to the vertex on the far side, and the larger of two distances: from
    the edge's first end to that vertex and to the next one. The far vertex begins the first edge that has turned
    by half a circle or more.
    """
    dx, dy = edges.next_x - edges.x, edges.next_y - edges.y
    angle = np.arctan2(dx, dy) % _TURN
    base, first = edges.ring * _APART, edges.starts[edges.ring]
    place = np.searchsorted(base + angle, base + (angle + np.pi) % _TURN) - first
    far = first + place % counts[edges.ring]
    to_x, to_y = edges.x[far] - edges.x, edges.y[far] - edges.y
    widths = np.abs(dx * to_y - dy * to_x) / edges.length
    to_next = np.hypot(edges.next_x[far] - edges.x, edges.next_y[far] - edges.y)
    return widths, np.maximum(np.hypot(to_x, to_y), to_next)
