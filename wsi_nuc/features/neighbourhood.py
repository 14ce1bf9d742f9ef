"""Who lives around a nucleus: distances, Delaunay edges, classes within radii. From centroids alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import Delaunay, QhullError, cKDTree

from wsi_nuc.features.around import Scene
from wsi_nuc.features.registry import RADII_UM
from wsi_nuc.features.shape import ratio
from wsi_nuc.types import Float64, Int64

NEAREST = (1, 3, 5)
# Nothing farther away is looked at. A triangle with a smaller circumcircle than half of it is the same in the
# triangulation of all nuclei and in that of those within this distance.
REACH_UM = 100.0
LARGEST_CIRCLE_UM = REACH_UM / 2

Columns = dict[str, Float64]


def neighbourhood_features(scene: Scene, classes: Sequence[str]) -> Columns:
    """Column name -> one value for each of the scene's own rows."""
    # Whole-slide coordinates would cost digits in the triangulation.
    xy = scene.xy_um - np.floor(scene.xy_um.min(axis=0))
    tree = cKDTree(xy)
    columns = {**_nearest(tree, xy, scene.own), **_delaunay(xy, scene.own)}
    pairs = tree.query_pairs(max(RADII_UM), output_type="ndarray")
    squared = ((xy[pairs[:, 0]] - xy[pairs[:, 1]]) ** 2).sum(axis=1)
    for radius in RADII_UM:
        columns |= _composition(pairs[squared <= radius**2], scene, classes, radius)
    return columns


def _nearest(tree: cKDTree, xy: Float64, own: int) -> Columns:
    """The first one found is the nucleus itself."""
    distance = tree.query(xy[:own], k=max(NEAREST) + 1, distance_upper_bound=REACH_UM)[0]
    distance[~np.isfinite(distance)] = np.nan
    return {f"neighbour_{k}_um": distance[:, k] for k in NEAREST}


def _composition(pairs: Int64, scene: Scene, classes: Sequence[str], radius: int) -> Columns:
    """Classes of the other ends of all pairs that a nucleus is in."""
    size = len(scene.xy_um) * len(classes)
    counts = np.zeros(size, np.int64)
    for here, there in ((0, 1), (1, 0)):
        counts += np.bincount(pairs[:, here] * len(classes) + scene.class_id[pairs[:, there]], minlength=size)
    table = counts.reshape(-1, len(classes))[: scene.own].astype(np.float64)
    total = table.sum(axis=1)
    shares = ratio(table, total[:, None])
    return {
        f"count_{radius}um": total,
        f"entropy_{radius}um_bits": 0.0 - (shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1),
        **{f"share_{radius}um_{name}": shares[:, k] for k, name in enumerate(classes)},
    }


def _delaunay(xy: Float64, own: int) -> Columns:
    """Edges of triangles whose circumcircle is small enough to be known, each edge once an end."""
    edges = _edges(xy)
    length = np.hypot(*(xy[edges[:, 0]] - xy[edges[:, 1]]).T)
    ends = edges.ravel()
    degree, total, squares = (
        np.bincount(ends, weights=weights, minlength=len(xy))[:own]
        for weights in (None, np.repeat(length, 2), np.repeat(length**2, 2))
    )
    mean = ratio(total, degree)
    return {
        "delaunay_degree": degree.astype(np.float64),
        "delaunay_edge_mean_um": mean,
        "delaunay_edge_sd_um": np.sqrt(np.maximum(ratio(squares, degree) - mean**2, 0)),
    }


def _edges(xy: Float64) -> Int64:
    """E x 2, each edge once."""
    try:
        corners = Delaunay(xy).simplices.astype(np.int64)
    except (QhullError, ValueError):
        # Fewer than three nuclei, or all on one line: no triangle.
        return np.zeros((0, 2), np.int64)
    small = corners[_circumradius(xy[corners]) <= LARGEST_CIRCLE_UM]
    every = np.sort(small[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    codes = np.unique(every[:, 0] * len(xy) + every[:, 1])
    return np.stack(np.divmod(codes, len(xy)), axis=1)


def _circumradius(triangles: Float64) -> Float64:
    """Of T x 3 x 2 corners; infinite for a flat one."""
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    doubled = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    sides = np.hypot(*a.T) * np.hypot(*b.T) * np.hypot(*(a - b).T)
    return np.where(doubled > 0, sides / np.where(doubled > 0, 2 * doubled, 1), np.inf)
