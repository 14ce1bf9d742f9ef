"""From images to the numbers of a paper: what a mean is taken over, and how an image without nuclei counts.

Kumar, CPM-17, CoNSeP, TNBC: AJI, AJI+, DQ, SQ, PQ and Dice are the plain mean over images. Detection and the F1 of
classes come from counts summed over all images. PanNuke: bPQ and mPQ as its authors define them, see
`pannuke_means`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.overlaps import (
    Labels,
    compact,
    overlaps_of_labels,
    overlaps_of_polygons,
)
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation import metrics
from wsi_nuc.evaluation.detection import (
    ClassCounts,
    Detection,
    Points,
    class_counts,
    detection,
    detection_by_class,
    match_optimally,
    radius_px,
)
from wsi_nuc.evaluation.metrics import Panoptic
from wsi_nuc.rings import Geometries
from wsi_nuc.types import Float64, Int64

NAN = float("nan")
_Counts = TypeVar("_Counts", Detection, ClassCounts)


@dataclass(frozen=True, slots=True)
class Nuclei:
    """All N nuclei of an image, true or predicted, in pixels of the image.

    Outlines are labels *or* polygons; both are None where only points are known.
    """

    points: Points
    """One point per nucleus."""
    labels: Labels | None = None
    """H x W with ids 1..N."""
    polygons: Geometries | None = None
    """One polygon per nucleus."""


def nuclei_of_labels(labels: Labels, types: Int64 | None = None, score: Float64 | None = None) -> Nuclei:
    """Nuclei whose points are the centres of mass. `types` (default -1) and `score` (default 1) belong to the ids
    in rising order."""
    rows, ids = compact(labels)
    n = len(ids)
    types = np.full(n, -1, np.int64) if types is None else np.asarray(types, np.int64)
    score = np.ones(n) if score is None else np.asarray(score, np.float64)
    if len(types) != n or len(score) != n:
        raise UsageError("nuclei", f"{n} labels, {len(types)} types and {len(score)} scores", "give one per label")
    return Nuclei(Points(centroids(rows, n), score, types), rows)


def centroids(labels: npt.NDArray[np.int32], n: int) -> Float64:
    """n x 2: x, y of the centres of mass of ids 1..n, pixel centres at i + 0.5; NaN for an id without pixels."""
    inside = np.flatnonzero(labels)
    ids = labels.flat[inside]
    area = np.bincount(ids, minlength=n + 1)[1:]
    y, x = np.divmod(inside, labels.shape[1])
    sums = np.stack([np.bincount(ids, weights=v, minlength=n + 1)[1:] for v in (x, y)], axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / area[:, None] + 0.5, np.float64)


@dataclass(frozen=True, slots=True)
class ImageScore:
    """Everything that is measured on an image. Scores of masks are NaN or empty where only points are known."""

    id: str
    group: str = ""
    """The tissue (PanNuke) or the patient."""
    aji: float = NAN
    aji_plus: float = NAN
    dice: float = NAN
    panoptic: Panoptic = field(default_factory=Panoptic)
    panoptic_by_class: tuple[Panoptic, ...] = ()
    detection: Detection = field(default_factory=Detection)
    detection_by_class: tuple[Detection, ...] = ()
    """Plain counts of each class."""
    hover_by_class: tuple[ClassCounts, ...] = ()
    """HoVer-Net's counts of each class."""
    traced_aji: float = NAN
    """AJI of the outlines that a run publishes; the scores above are those of the masks."""
    traced_pq: float = NAN
    """PQ of these outlines."""

    def with_traced(self, truth: Nuclei, outlines: Nuclei) -> ImageScore:
        """The same, with the scores of the outlines of a run as labels."""
        if truth.labels is None or outlines.labels is None:
            return self
        overlaps = overlaps_of_labels(truth.labels, outlines.labels)
        return replace(self, traced_aji=metrics.aji(overlaps), traced_pq=metrics.panoptic(overlaps).pq)


def score_image(
    truth: Nuclei, predicted: Nuclei, *, mpp: float | None, classes: int, id: str = "", group: str = ""
) -> ImageScore:
    """All scores of one image. `mpp` (microns per pixel) sets the radius of detection."""
    radius = radius_px(mpp)
    of_truth, of_predicted = truth.points, predicted.points
    partner = match_optimally(of_truth.xy, of_predicted.xy, radius)
    score = ImageScore(
        id,
        group,
        detection=detection(of_truth.xy, of_predicted.xy, of_predicted.score, radius),
        detection_by_class=tuple(detection_by_class(of_truth, of_predicted, radius, classes)),
        hover_by_class=tuple(class_counts(of_truth, of_predicted, partner, classes)),
    )
    return _with_masks(score, truth, predicted, classes)


def _with_masks(score: ImageScore, truth: Nuclei, predicted: Nuclei, classes: int) -> ImageScore:
    if truth.labels is not None and predicted.labels is not None:
        overlaps = overlaps_of_labels(truth.labels, predicted.labels)
        dice = metrics.dice(overlaps)
    elif truth.polygons is not None and predicted.polygons is not None:
        overlaps = overlaps_of_polygons(truth.polygons, predicted.polygons)
        dice = metrics.dice_of_polygons(truth.polygons, predicted.polygons)
    elif not (_has_outlines(truth) and _has_outlines(predicted)):
        return score
    else:
        raise UsageError(
            score.id or "image", "one side has labels and the other polygons", "rasterise one of them"
        )
    by_class = metrics.panoptic_by_class(overlaps, truth.points.types, predicted.points.types, classes)
    return replace(
        score,
        aji=metrics.aji(overlaps),
        aji_plus=metrics.aji_plus(overlaps),
        dice=dice,
        panoptic=metrics.panoptic(overlaps),
        panoptic_by_class=tuple(by_class),
    )


def _has_outlines(nuclei: Nuclei) -> bool:
    return nuclei.labels is not None or nuclei.polygons is not None


@dataclass(frozen=True, slots=True)
class Means:
    """The scores of a data set: means over its images, and counts summed over them."""

    images: int
    unscored: int
    """Images without a nucleus on either side, which the means leave out."""
    aji: float
    aji_plus: float
    dice: float
    dq: float
    sq: float
    pq: float
    detection: Detection
    detection_by_class: tuple[Detection, ...]
    hover_by_class: tuple[ClassCounts, ...]
    pq_by_class: tuple[float, ...]
    traced_aji: float = NAN
    """AJI of the outlines that a run publishes."""
    traced_pq: float = NAN

    @property
    def overall(self) -> dict[str, float]:
        """The scores that a training shows."""
        return {"pq": self.pq, "dq": self.dq, "sq": self.sq, "aji": self.aji, "f1": self.detection.f1}


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    kept = [v for v in values if not np.isnan(v)]
    return float(np.mean(kept)) if kept else NAN


def image_means(scores: Sequence[ImageScore]) -> Means:
    """Means over images. The PQ of a class is the mean over the images that hold it, in truth or prediction, and
    whose outlines are known."""
    if not scores:
        raise UsageError("evaluation", "no image was scored", "check the data set and its split")
    classes = range(max(len(s.panoptic_by_class) for s in scores))
    return Means(
        images=len(scores),
        unscored=sum(bool(np.isnan(s.aji)) for s in scores),
        aji=mean(s.aji for s in scores),
        aji_plus=mean(s.aji_plus for s in scores),
        dice=mean(s.dice for s in scores),
        dq=mean(s.panoptic.dq for s in scores),
        sq=mean(s.panoptic.sq for s in scores),
        pq=mean(s.panoptic.pq for s in scores),
        detection=sum((s.detection for s in scores), Detection()),
        detection_by_class=_sums(Detection(), [s.detection_by_class for s in scores]),
        hover_by_class=_sums(ClassCounts(), [s.hover_by_class for s in scores]),
        pq_by_class=tuple(mean(s.panoptic_by_class[c].pq for s in scores if s.panoptic_by_class) for c in classes),
        traced_aji=mean(s.traced_aji for s in scores),
        traced_pq=mean(s.traced_pq for s in scores),
    )


def _sums(zero: _Counts, rows: Sequence[Sequence[_Counts]]) -> tuple[_Counts, ...]:
    return tuple(reduce(add, column, zero) for column in zip(*rows, strict=True))


@dataclass(frozen=True, slots=True)
class PanNukeMeans:
    """bPQ and mPQ by tissue, their means over tissues, and the PQ of each class over images."""

    bpq_by_tissue: dict[str, float]
    mpq_by_tissue: dict[str, float]
    bpq: float
    mpq: float
    pq_by_class: tuple[float, ...]


def pannuke_means(scores: Sequence[ImageScore]) -> PanNukeMeans:
    """PanNuke's protocol.

    Where the *truth* of an image has no nucleus (of a class), its PQ is NaN, whatever was predicted. mPQ is the
    mean over classes, then over the images of a tissue, then over tissues; bPQ is the same without classes. The PQ
    of a class is its mean over all images.
    """
    bpq = {s.id: _pq_if_true(s.panoptic) for s in scores}
    by_class = {s.id: [_pq_if_true(p) for p in s.panoptic_by_class] for s in scores}
    if len(bpq) != len(scores):
        raise UsageError("evaluation", "two images have one id", "give every image its own id")
    tissues = sorted({s.group for s in scores})
    of = {t: [s.id for s in scores if s.group == t] for t in tissues}
    bpq_by_tissue = {t: mean(bpq[i] for i in of[t]) for t in tissues}
    mpq_by_tissue = {t: mean(mean(by_class[i]) for i in of[t]) for t in tissues}
    return PanNukeMeans(
        bpq_by_tissue,
        mpq_by_tissue,
        mean(bpq_by_tissue.values()),
        mean(mpq_by_tissue.values()),
        tuple(mean(column) for column in zip(*by_class.values(), strict=True)),
    )


def _pq_if_true(p: Panoptic) -> float:
    return p.pq if p.tp + p.fn else NAN
