"""Which true and which predicted nuclei share area: one sparse matrix per image, for all scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import UsageError
from wsi_nuc.rings import Geometries
from wsi_nuc.types import Float64, Int64

Labels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Areas of T true and P predicted nuclei, and the K pairs that share area, sorted by (truth, predicted).

    Areas are in px^2. True nuclei, or predicted ones, may overlap each other if they come from polygons.
    """

    truth_ids: Int64
    """T: label values, or positions of polygons."""
    predicted_ids: Int64
    """P: likewise."""
    truth_area: Float64
    """T."""
    predicted_area: Float64
    """P."""
    truth: Int64
    """K: the row of the pair's true nucleus."""
    predicted: Int64
    """K: the row of the pair's predicted nucleus."""
    shared: Float64
    """K: the area that both share, > 0."""

    @property
    def union(self) -> Float64:
        """K: area of the union of each pair."""
        return self.truth_area[self.truth] + self.predicted_area[self.predicted] - self.shared

    @property
    def iou(self) -> Float64:
        return np.asarray(self.shared / self.union, np.float64)


def overlaps_of_labels(truth: Labels, predicted: Labels) -> Overlaps:
    """From two label images of the same size (integers, 0 = background, ids in any order)."""
    if truth.shape != predicted.shape:
        raise UsageError(
            "label images",
            f"the truth is {truth.shape} and the prediction {predicted.shape} pixels",
            "compare one crop",
        )
    truth_rows, truth_ids = compact(truth)
    predicted_rows, predicted_ids = compact(predicted)
    both = np.flatnonzero((truth_rows > 0) & (predicted_rows > 0))
    columns = max(1, len(predicted_ids))
    keys = (truth_rows.flat[both].astype(np.int64) - 1) * columns + predicted_rows.flat[both] - 1
    pairs, shared = np.unique(keys, return_counts=True)
    return Overlaps(
        truth_ids,
        predicted_ids,
        np.bincount(truth_rows.ravel(), minlength=len(truth_ids) + 1)[1:].astype(np.float64),
        np.bincount(predicted_rows.ravel(), minlength=len(predicted_ids) + 1)[1:].astype(np.float64),
        pairs // columns,
        pairs % columns,
        shared.astype(np.float64),
    )


def compact(labels: Labels) -> tuple[npt.NDArray[np.int32], Int64]:
    """The image with ids 1..N in the order of the old ids, and the N old ids."""
    if labels.dtype.kind not in "ui" or (labels.size and labels.min() < 0):
        raise UsageError("label image", f"needs integers >= 0, got {labels.dtype}", "convert the labels first")
    top = int(labels.max(initial=0))
    # A table of all ids is far faster than sorting the pixels, unless the ids are sparse and huge.
    if top <= 4 * labels.size + 1024:
        used = np.bincount(labels.ravel(), minlength=top + 1) > 0
        used[0] = False
        table = np.where(used, np.cumsum(used), 0).astype(np.int32)
        return table[labels], np.flatnonzero(used).astype(np.int64)
    ids, rows = np.unique(labels, return_inverse=True)
    first = 0 if ids[0] == 0 else 1
    return (rows.reshape(labels.shape) + first).astype(np.int32), ids[1 - first :].astype(np.int64)


def overlaps_of_polygons(truth: Geometries, predicted: Geometries) -> Overlaps:
    """From two arrays of valid shapely polygons in the same frame. The areas are exact; nothing is rasterised."""
    import shapely

    tree = shapely.STRtree(predicted)
    rows, columns = tree.query(truth, predicate="intersects")
    shared = shapely.area(shapely.intersection(truth[rows], predicted[columns]))
    real = shared > 0  # touching borders meet without sharing area
    order = np.lexsort((columns[real], rows[real]))
    return Overlaps(
        np.arange(len(truth), dtype=np.int64),
        np.arange(len(predicted), dtype=np.int64),
        np.asarray(shapely.area(truth), np.float64),
        np.asarray(shapely.area(predicted), np.float64),
        rows[real][order].astype(np.int64),
        columns[real][order].astype(np.int64),
        np.asarray(shared[real][order], np.float64),
    )
