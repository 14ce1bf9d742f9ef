"""Scores of points: detection by greedy matching, and the F1 of a class, plain and as HoVer-Net counts it.

If neither side has a point, a score is NaN; if only one side has points, it is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.types import Float64, Int64

RADIUS_UM = 3.0  # 12 px at 40x, 6 px at 20x


def radius_px(mpp: float | None) -> float:
    """How far a detected point may lie from the true one, in pixels of `mpp` microns each."""
    if mpp is None or not mpp > 0:
        raise UsageError(
            "mpp", f"the detection radius of {RADIUS_UM} um needs it, got {mpp}", "give the data set's mpp"
        )
    return RADIUS_UM / mpp


@dataclass(frozen=True, slots=True)
class Detection:
    """Counts behind precision, recall and F1. Adding two of them gives the counts of both images together."""

    tp: int = 0
    """Pairs of a true and a predicted point."""
    fp: int = 0
    """Predicted points without a partner."""
    fn: int = 0
    """True points without a partner."""

    def __add__(self, other: Detection) -> Detection:
        return Detection(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        return _share(self.tp, self.tp + self.fp, self.tp + self.fp + self.fn)

    @property
    def recall(self) -> float:
        return _share(self.tp, self.tp + self.fn, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float:
        everything = 2 * self.tp + self.fp + self.fn
        return _share(2 * self.tp, everything, everything)


def _share(part: float, whole: float, everything: float) -> float:
    if not everything:
        return float("nan")
    return part / whole if whole else 0.0


def match_greedily(truth_xy: Float64, predicted_xy: Float64, score: Float64, radius: float) -> Int64:
    """For each predicted point the true point that it takes, or -1.

    In falling order of score, each predicted point takes the nearest true point that is still free and at most
    `radius` away. At ties the first point counts, on both sides.
    """
    near, of, distance2 = _near_pairs(truth_xy, predicted_xy, radius)
    rank = np.empty(len(score), np.int64)
    rank[np.argsort(-np.asarray(score, np.float64), kind="stable")] = np.arange(len(score))
    taken, partner = np.zeros(len(truth_xy), bool), np.full(len(predicted_xy), -1, np.int64)
    for k in np.lexsort((near, distance2, rank[of])):
        if partner[of[k]] < 0 and not taken[near[k]]:
            partner[of[k]], taken[near[k]] = near[k], True
    return partner


def _near_pairs(truth_xy: Float64, predicted_xy: Float64, radius: float) -> tuple[Int64, Int64, Float64]:
    """True point, predicted point and squared distance of all pairs that are at most `radius` apart."""
    from scipy.spatial import cKDTree

    if not len(truth_xy) or not len(predicted_xy):
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0)
    # The tree looks a little further than asked, so that the exact comparison below decides at the limit.
    neighbours = cKDTree(predicted_xy).query_ball_point(truth_xy, radius * (1 + 1e-9) + 1e-9)
    near = np.repeat(np.arange(len(truth_xy)), [len(row) for row in neighbours])
    of = np.array([p for row in neighbours for p in row], np.int64)
    distance2 = ((truth_xy[near] - predicted_xy[of]) ** 2).sum(axis=1)
    inside = distance2 <= radius**2
    return near[inside].astype(np.int64), of[inside], distance2[inside]


def match_optimally(truth_xy: Float64, predicted_xy: Float64, radius: float) -> Int64:
    """For each predicted point its partner in the assignment of least total distance, -1 if farther than `radius`.

    HoVer-Net's evaluation pairs points this way; the assignment is made before the radius is applied.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    partner = np.full(len(predicted_xy), -1, np.int64)
    if len(truth_xy) and len(predicted_xy):
        distance = cdist(truth_xy, predicted_xy)
        rows, columns = linear_sum_assignment(distance)
        close = distance[rows, columns] <= radius
        partner[columns[close]] = rows[close]
    return partner


def detection(truth_xy: Float64, predicted_xy: Float64, score: Float64, radius: float) -> Detection:
    tp = int((match_greedily(truth_xy, predicted_xy, score, radius) >= 0).sum())
    return Detection(tp, len(predicted_xy) - tp, len(truth_xy) - tp)


@dataclass(frozen=True, slots=True)
class Points:
    """N points of an image."""

    xy: Float64
    """N x 2 pixels of the image; the first pixel's centre lies at 0.5."""
    score: Float64
    """N."""
    types: Int64
    """N class ids; -1: unknown."""

    def of_class(self, c: int) -> Points:
        rows = self.types == c
        return Points(self.xy[rows], self.score[rows], self.types[rows])


def detection_by_class(truth: Points, predicted: Points, radius: float, classes: int) -> list[Detection]:
    """Plain counts of each class: the points of a class are matched among themselves."""
    out = []
    for c in range(classes):
        of_truth, of_predicted = truth.of_class(c), predicted.of_class(c)
        out.append(detection(of_truth.xy, of_predicted.xy, of_predicted.score, radius))
    return out


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """HoVer-Net's counts of a class."""

    tp: int = 0
    """Pairs in which both points are of the class."""
    fp: int = 0
    """Pairs in which only the predicted point is of the class."""
    fn: int = 0
    """Pairs in which only the true point is of the class."""
    fp_d: int = 0
    """Predicted points of the class without a partner."""
    fn_d: int = 0
    """True points of the class without a partner."""

    def __add__(self, o: ClassCounts) -> ClassCounts:
        return ClassCounts(self.tp + o.tp, self.fp + o.fp, self.fn + o.fn, self.fp_d + o.fp_d, self.fn_d + o.fn_d)

    @property
    def f1(self) -> float:
        """F_c = 2 TP / (2 TP + 2 FP + 2 FN + FP_d + FN_d). As in the released evaluation, pairs of other classes
        (the paper's TN) do not count."""
        everything = 2 * (self.tp + self.fp + self.fn) + self.fp_d + self.fn_d
        return _share(2 * self.tp, everything, everything)

    @property
    def precision(self) -> float:
        whole = self.tp + 2 * self.fp + self.fp_d
        return _share(self.tp, whole, whole + self.fn + self.fn_d)

    @property
    def recall(self) -> float:
        whole = self.tp + 2 * self.fn + self.fn_d
        return _share(self.tp, whole, whole + self.fp + self.fp_d)


def class_counts(truth: Points, predicted: Points, partner: Int64, classes: int) -> list[ClassCounts]:
    """Counts of each class for a pairing of all points, see `match_optimally`. Where the true class is unknown,
    the predicted one is not judged."""
    paired = partner >= 0
    pt, pp = truth.types[partner[paired]], predicted.types[paired]
    alone_truth = np.delete(truth.types, partner[paired])
    alone_predicted = predicted.types[~paired]
    return [
        ClassCounts(
            int(((pt == c) & (pp == c)).sum()),
            int(((pt != c) & (pt >= 0) & (pp == c)).sum()),
            int(((pt == c) & (pp != c)).sum()),
            int((alone_predicted == c).sum()),
            int((alone_truth == c).sum()),
        )
        for c in range(classes)
    ]
