"""Shape of polygons: exact integrals over the outline, no pixels."""

from __future__ import annotations

import numpy as np

from wsi_nuc.features.hull import hulls
from wsi_nuc.features.rings import Edges, ratio
from wsi_nuc.types import Float64, Int64

Columns = dict[str, Float64]


def shape_features(xy_um: Float64, offsets: Int64) -> Columns:
    """Column name -> N values. Rings are implicitly closed, M x 2 vertices in micrometres."""
    edges = Edges.of(xy_um, offsets)
    area, centre, moments = _moments(edges)
    perimeter = edges.sum(edges.length)
    hull = hulls(xy_um, offsets)
    low, high = np.minimum.reduceat(xy_um, offsets[:-1], axis=0), np.maximum.reduceat(xy_um, offsets[:-1], axis=0)
    return {
        "area_um2": area,
        "perimeter_um": perimeter,
        "equivalent_diameter_um": np.sqrt(4 * area / np.pi),
        **_ellipse(*moments),
        "extent": ratio(area, np.prod(high - low, axis=1)),
        "solidity": ratio(area, hull.area),
        "convexity": ratio(hull.perimeter, perimeter),
        "circularity": ratio(4 * np.pi * area, perimeter**2),
        "feret_max_um": hull.feret_max,
        "feret_min_um": hull.feret_min,
        **_radii(edges, centre, perimeter),
    }


def _moments(edges: Edges) -> tuple[Float64, tuple[Float64, Float64], tuple[Float64, Float64, Float64]]:
    """Area, centroid relative to the rings' origins, and central second moments xx, yy, xy over the area."""
    x, y, u, v = edges.x, edges.y, edges.next_x, edges.next_y
    cross = x * v - u * y
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
    """Distance of the outline from the centroid, along it: each edge by Simpson's rule."""
    cx, cy = (side[edges.ring] for side in centre)
    begin, end = np.hypot(edges.x - cx, edges.y - cy), np.hypot(edges.next_x - cx, edges.next_y - cy)
    middle = np.hypot((edges.x + edges.next_x) / 2 - cx, (edges.y + edges.next_y) / 2 - cy)
    mean = ratio(edges.sum((begin + 4 * middle + end) / 6 * edges.length), perimeter)
    square = ratio(edges.sum((begin**2 + 4 * middle**2 + end**2) / 6 * edges.length), perimeter)
    return {"radius_mean_um": mean, "radius_sd_um": np.sqrt(np.maximum(square - mean**2, 0))}
