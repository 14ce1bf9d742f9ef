"""Scores of instance masks: AJI, AJI+, DQ, SQ, PQ, Dice.

If neither side has a nucleus, a score is NaN, and means leave it out: an image without nuclei says nothing about
outlines. If only one side has nuclei, the score is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.overlaps import Overlaps
from wsi_nuc.errors import UsageError
from wsi_nuc.rings import Geometries
from wsi_nuc.types import Int64


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Counts behind the panoptic quality. Adding two of them gives the counts of both images together."""

    tp: int = 0
    """Matched pairs of nuclei."""
    fp: int = 0
    """Predicted nuclei without a match."""
    fn: int = 0
    """True nuclei without a match."""
    iou_sum: float = 0.0
    """Sum of the IoUs of the matched pairs."""

    def __add__(self, other: Panoptic) -> Panoptic:
        return Panoptic(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou_sum + other.iou_sum)

    @property
    def dq(self) -> float:
        """Detection quality: the F1 of matched nuclei."""
        total = self.tp + 0.5 * (self.fp + self.fn)
        return self.tp / total if total else float("nan")

    @property
    def sq(self) -> float:
        """Segmentation quality: the mean IoU of matched nuclei; 0 where there are nuclei but no matches."""
        if self.tp + self.fp + self.fn == 0:
            return float("nan")
        return self.iou_sum / self.tp if self.tp else 0.0

    @property
    def pq(self) -> float:
        return self.dq * self.sq


def panoptic(overlaps: Overlaps, iou_over: float = 0.5) -> Panoptic:
    """Pairs with an IoU *over* `iou_over` are matched. From 0.5 on, no nucleus can have two partners."""
    matched = _matched(overlaps, iou_over)
    tp = int(matched.sum())
    return Panoptic(
        tp,
        len(overlaps.predicted_area) - tp,
        len(overlaps.truth_area) - tp,
        float(overlaps.iou[matched].sum()),
    )


def _matched(overlaps: Overlaps, iou_over: float) -> npt.NDArray[np.bool_]:
    if not 0.5 <= iou_over < 1:
        raise UsageError("iou_over", f"{iou_over} does not make matches unique", "use a value in 0.5..1")
    return np.asarray(overlaps.iou > iou_over)


def panoptic_by_class(
    overlaps: Overlaps, truth_types: Int64, predicted_types: Int64, classes: int
) -> list[Panoptic]:
    """One `Panoptic` per class, from the nuclei of that class alone. There is one type per row; -1 is not a
    class."""
    same = truth_types[overlaps.truth] == predicted_types[overlaps.predicted]
    matched = _matched(overlaps, 0.5) & same & (truth_types[overlaps.truth] >= 0)
    of = truth_types[overlaps.truth[matched]]
    tp = np.bincount(of, minlength=classes)
    iou_sum = np.bincount(of, weights=overlaps.iou[matched], minlength=classes)
    fp = np.bincount(predicted_types[predicted_types >= 0], minlength=classes) - tp
    fn = np.bincount(truth_types[truth_types >= 0], minlength=classes) - tp
    return [Panoptic(int(tp[c]), int(fp[c]), int(fn[c]), float(iou_sum[c])) for c in range(classes)]


def aji(overlaps: Overlaps) -> float:
    """Aggregated Jaccard index (Kumar 2017, as distributed for MoNuSeg).

    Each true nucleus takes the predicted one of highest IoU (the first one at a tie); several may take the same
    one. Predicted nuclei that were not taken, and true ones that took none, count in the union.
    """
    order = np.lexsort((overlaps.predicted, -overlaps.iou, overlaps.truth))
    _, first = np.unique(overlaps.truth[order], return_index=True)
    return _aggregated_jaccard(overlaps, order[first])


def aji_plus(overlaps: Overlaps) -> float:
    """AJI with one-to-one pairs: the assignment of the greatest sum of IoUs."""
    return _aggregated_jaccard(overlaps, best_assignment(overlaps))


def _aggregated_jaccard(overlaps: Overlaps, pairs: Int64) -> float:
    alone_truth = np.delete(overlaps.truth_area, overlaps.truth[pairs]).sum()
    alone_predicted = np.delete(overlaps.predicted_area, overlaps.predicted[pairs]).sum()
    union = overlaps.union[pairs].sum() + alone_truth + alone_predicted
    return float(overlaps.shared[pairs].sum() / union) if union else float("nan")


def best_assignment(overlaps: Overlaps) -> Int64:
    """Indices of the pairs of a one-to-one assignment that maximises the sum of IoUs.

    It is solved for each connected group of nuclei, so that each problem has only a few touching nuclei.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(overlaps.shared):
        return np.zeros(0, np.int64)
    truths, nodes = len(overlaps.truth_area), len(overlaps.truth_area) + len(overlaps.predicted_area)
    edges = (np.ones(len(overlaps.shared)), (overlaps.truth, overlaps.predicted + truths))
    group = connected_components(coo_array(edges, (nodes, nodes)), directed=False)[1][overlaps.truth]
    order = np.argsort(group, kind="stable")
    chosen = []
    for pairs in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        rows, row = np.unique(overlaps.truth[pairs], return_inverse=True)
        columns, column = np.unique(overlaps.predicted[pairs], return_inverse=True)
        pair_at = np.full((len(rows), len(columns)), -1)
        pair_at[row, column] = pairs
        gain = np.where(pair_at >= 0, overlaps.iou[pair_at], 0.0) if len(pairs) > 1 else np.ones((1, 1))
        picked = pair_at[linear_sum_assignment(-gain)]
        chosen.append(picked[picked >= 0])
    return np.concatenate(chosen).astype(np.int64)


def dice(overlaps: Overlaps) -> float:
    """Dice of the two foregrounds. It is exact where the nuclei of a side do not overlap, as in label images."""
    total = overlaps.truth_area.sum() + overlaps.predicted_area.sum()
    return float(2 * overlaps.shared.sum() / total) if total else float("nan")


def dice_of_polygons(truth: Geometries, predicted: Geometries) -> float:
    """Dice of the two foregrounds, where polygons of a side may overlap."""
    import shapely

    of_truth, of_predicted = shapely.union_all(truth), shapely.union_all(predicted)
    total = of_truth.area + of_predicted.area
    return float(2 * shapely.intersection(of_truth, of_predicted).area / total) if total else float("nan")
