"""The neighbours of nuclei, from centroids alone.

`neighbourhood_features` measures each nucleus: distances, Delaunay edges, classes within radii. `PairCounter`
measures a whole slide: which classes are neighbours more often than by chance, and how far the nearest nucleus is.

`Surroundings` gives them the nuclei of one row group with those around it: nothing ends at the border of a group.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from wsi_nuc.features.registry import RADII_UM, REACH_UM, WITHIN_REACH
from wsi_nuc.features.shape import ratio
from wsi_nuc.store.column_record import Column, about_mean_by
from wsi_nuc.store.reading import NucleiFile, Points
from wsi_nuc.types import Bool, Float64, Int64

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Item = TypeVar("Item")
_GROUPS_HELD = 24
NEIGHBOURS_UM = 30.0
FARTHEST_UM = 100.0
# Distances are summed as whole multiples of this, so that the sum does not depend on the order.
_UNIT_UM = 2.0**-20
NEAREST = (1, 3, 5)
# A triangle whose circumradius is at most half of the reach is the same, whether all nuclei are triangulated or
# only those within the reach.
LARGEST_CIRCLE_UM = REACH_UM / 2
Columns = dict[str, Float64]
NEAREST_FIGURE = Column(
    "nearest_um_mean",
    "um",
    f"mean distance from a nucleus to the nearest other one, between centroids. Nuclei that have none within "
    f"{FARTHEST_UM:.0f} um are left out, so it is too small where nuclei are sparse. Those near the border of the "
    "tissue are included, so it is too large where tissue is in small pieces",
    f"0 to {FARTHEST_UM:.0f}",
    f"no nucleus has another one within {FARTHEST_UM:.0f} um",
    patient=about_mean_by("nuclei"),
)
ENRICHMENT_FIGURE = Column(
    "enrichment_{class}_{other}",
    "log2",
    "log2((counted + 0.5) / (expected + 0.5)). Counted: pairs of a nucleus of the first class and one of the "
    f"second whose centroids are at most {NEIGHBOURS_UM:.0f} um apart, each pair once. Expected: all pairs that "
    "near, times the share of the slide's pairs that are of these two classes (n_a n_b, or n_a (n_a - 1) / 2 for "
    "one class, over n (n - 1) / 2). 0: as by chance; 1: twice as often. The added half pairs pull it towards 0 "
    "where pairs are few, and give a number where none is counted. Nuclei near the border of the tissue are "
    "included: they have fewer pairs of every kind. The classes come in the model's order",
    "any number",
    "no such pair is possible: a class has no nucleus, or one alone where both are the same; or no two nuclei "
    "of the slide are so near",
    patient=about_mean_by("nuclei"),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """The nuclei of one row group, its own rows, followed by the rows of other groups that lie near them."""

    xy_um: Float64
    """R x 2: centroids of own and near rows."""
    class_id: Int64
    """R: class of each own and near row."""
    area_um2: Float64
    """N: areas of the own rows alone."""
    own: int
    """N, the number of own rows, which come first."""
    earlier: Bool
    """R - N: whether a near row comes before the own rows in the file, so that a pair across the border of two
    groups is counted once."""


class Held(Generic[Item]):
    """The last few items that were made: rows are in spatial order, so neighbours are asked for soon again."""

    def __init__(self, most: int = _GROUPS_HELD) -> None:
        self._items: OrderedDict[int, Item] = OrderedDict()
        self._most = most

    def get(self, key: int) -> Item | None:
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: int, item: Item) -> Item:
        self._items[key] = item
        while len(self._items) > self._most:
            self._items.popitem(last=False)
        return item


class Surroundings:
    """Makes the scenes of a file's row groups."""

    def __init__(self, file: NucleiFile, mpp: float, margin_um: float) -> None:
        """`margin_um`: how far around a group's own nuclei to look for others."""
        self._file, self._mpp, self._margin_l0 = file, mpp, margin_um / mpp
        self._held: Held[Points] = Held()

    def scene(self, group: int) -> Scene:
        own = self._points(group)
        x0, y0, x1, y1 = self._file.group_boxes_l0[group].tolist()
        margin = self._margin_l0
        box = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
        neighbours = [neighbour for neighbour in self._file.meeting(box) if neighbour != group]
        near = [self._points(neighbour).within(box) for neighbour in neighbours]
        earlier = [neighbour < group for neighbour in neighbours]
        return Scene(
            xy_um=np.concatenate([part.xy_l0 for part in (own, *near)]) * self._mpp,
            class_id=np.concatenate([part.class_id for part in (own, *near)]),
            area_um2=own.area_um2,
            own=len(own),
            earlier=np.repeat(earlier, [len(part) for part in near]).astype(np.bool_),
        )

    def _points(self, group: int) -> Points:
        held = self._held.get(group)
        return held if held is not None else self._held.put(group, self._file.points(group))


def neighbourhood_features(scene: Scene, classes: Sequence[str]) -> Columns:
    """Column name -> one value for each of the scene's own rows."""
    from scipy.spatial import cKDTree

    # Whole-slide coordinates would cost digits in the triangulation.
    xy = scene.xy_um - np.floor(scene.xy_um.min(axis=0))
    tree = cKDTree(xy)
    columns = {**_nearest(tree, xy, scene.own), **_delaunay(xy, scene.own)}
    pairs = tree.query_pairs(max(RADII_UM), output_type="ndarray")
    squared = ((xy[pairs[:, 0]] - xy[pairs[:, 1]]) ** 2).sum(axis=1)
    for radius in RADII_UM:
        columns |= _composition(pairs[squared <= radius**2], scene, classes, radius)
    for name, rule in needs(classes).items():
        columns[name] = np.where(columns[rule.counted_by] >= rule.least, columns[name], rule.otherwise)
    return columns


@dataclass(frozen=True, slots=True)
class Need:
    """What a column of a nucleus needs in order to have a value."""

    counted_by: str
    """The column that counts what it needs."""
    least: int
    otherwise: float
    """The value without that many."""


def needs(classes: Sequence[str]) -> dict[str, Need]:
    """By the name of the column, for each that needs neighbours."""
    out = {f"neighbour_{k}_um": Need(WITHIN_REACH, k, REACH_UM) for k in NEAREST}
    out["delaunay_edge_mean_um"] = Need("delaunay_degree", 1, REACH_UM)
    out["delaunay_edge_sd_um"] = Need("delaunay_degree", 1, 0.0)
    for radius in RADII_UM:
        shares = [f"share_{radius}um_{name}" for name in classes]
        out |= dict.fromkeys([f"entropy_{radius}um_bits", *shares], Need(f"count_{radius}um", 1, 0.0))
    return out


def _nearest(tree: cKDTree, xy: Float64, own: int) -> Columns:
    """Distances to the nearest other nuclei. The very nearest is the nucleus itself."""
    distance = tree.query(xy[:own], k=max(NEAREST) + 1, distance_upper_bound=REACH_UM)[0]
    within = np.isfinite(distance[:, 1:]).sum(axis=1).astype(np.float64)
    return {WITHIN_REACH: within, **{f"neighbour_{k}_um": distance[:, k] for k in NEAREST}}


def _composition(pairs: Int64, scene: Scene, classes: Sequence[str], radius: int) -> Columns:
    """Counts each nucleus's neighbours by class: the other ends of all pairs that it is in."""
    size = len(scene.xy_um) * len(classes)
    counts = np.zeros(size, np.int64)
    for centre, neighbour in ((0, 1), (1, 0)):
        codes = pairs[:, centre] * len(classes) + scene.class_id[pairs[:, neighbour]]
        counts += np.bincount(codes, minlength=size)
    table = counts.reshape(-1, len(classes))[: scene.own].astype(np.float64)
    total = table.sum(axis=1)
    shares = ratio(table, total[:, None])
    return {
        f"count_{radius}um": total,
        f"entropy_{radius}um_bits": 0.0 - (shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1),
        **{f"share_{radius}um_{name}": shares[:, k] for k, name in enumerate(classes)},
    }


def _delaunay(xy: Float64, own: int) -> Columns:
    """Edges of the triangles whose circumcircle is small enough; each edge counts at both of its ends."""
    edges = edges_between(xy)
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


def edges_between(xy_um: Float64) -> Int64:
    """E x 2: the rows of the ends of each Delaunay edge of the points (N x 2), each edge once.

    An edge counts if the circumcircle of one of its triangles is small enough.
    """
    from scipy.spatial import Delaunay, QhullError

    try:
        corners = Delaunay(xy_um).simplices.astype(np.int64)
    except (QhullError, ValueError):
        # Fewer than three nuclei, or all on one line: no triangle.
        return np.zeros((0, 2), np.int64)
    small = corners[_circumradius(xy_um[corners]) <= LARGEST_CIRCLE_UM]
    every = np.sort(small[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    codes = np.unique(every[:, 0] * len(xy_um) + every[:, 1])
    return np.stack(np.divmod(codes, len(xy_um)), axis=1)


def _circumradius(triangles: Float64) -> Float64:
    """T, for triangles of T x 3 x 2 corners; infinite for a flat triangle."""
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    doubled = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    sides = np.hypot(*a.T) * np.hypot(*b.T) * np.hypot(*(a - b).T)
    return np.where(doubled > 0, sides / np.where(doubled > 0, 2 * doubled, 1), np.inf)


class PairCounter:
    """Counts pairs of nuclei at most `NEIGHBOURS_UM` apart by their two classes, each pair once."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._names = list(classes)
        self._pairs = np.zeros((len(classes), len(classes)), np.int64)
        self._nearest, self._with_neighbour = 0, 0

    def add(self, scene: Scene) -> None:
        from scipy.spatial import cKDTree

        if not scene.own:
            return
        tree = cKDTree(scene.xy_um)
        pairs = tree.query_pairs(NEIGHBOURS_UM, output_type="ndarray")
        own_first = pairs[:, 0] < scene.own
        counts_here = np.concatenate([np.ones(scene.own, np.bool_), scene.earlier])
        pairs = pairs[own_first & counts_here[pairs[:, 1]]]
        first, second = np.sort(scene.class_id[pairs], axis=1).T
        size = len(self._names)
        self._pairs += np.bincount(first * size + second, minlength=size * size).reshape(size, size)
        self._add_nearest(tree, scene)

    def _add_nearest(self, tree: cKDTree, scene: Scene) -> None:
        # The very nearest is the nucleus itself.
        query = tree.query(scene.xy_um[: scene.own], k=2, distance_upper_bound=FARTHEST_UM)
        nearest = query[0][:, 1]
        known = nearest[np.isfinite(nearest)]
        self._nearest += int(np.round(known / _UNIT_UM).astype(np.int64).sum())
        self._with_neighbour += len(known)

    @property
    def nearest_um(self) -> float:
        """Mean distance to the nearest nucleus, of those that have one within `FARTHEST_UM`."""
        if not self._with_neighbour:
            return math.nan
        return self._nearest * _UNIT_UM / self._with_neighbour

    def enrichment(self, counts: Sequence[int]) -> dict[tuple[str, str], float]:
        """log2 of the counted pairs over those expected if the classes were dealt out anew among all nuclei.

        0: as by chance; 1: twice as often. Half a pair is added to both, so that a count of 0 gives a number, too.
        NaN where no such pair is possible.
        """
        nuclei, pairs = sum(counts), int(self._pairs.sum())
        out = {}
        for a, name in enumerate(self._names):
            for b in range(a, len(self._names)):
                possible = counts[a] * (counts[a] - 1) / 2 if a == b else counts[a] * counts[b]
                share = possible / (nuclei * (nuclei - 1) / 2) if nuclei > 1 else 0.0
                out[name, self._names[b]] = _log_ratio(int(self._pairs[a, b]), pairs * share)
        return out


def _log_ratio(counted: int, expected: float) -> float:
    return math.log2((counted + 0.5) / (expected + 0.5)) if expected > 0 else math.nan
