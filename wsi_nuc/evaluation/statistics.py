"""How sure a score is, and whether two models differ: both over the images of a data set.

An interval is a percentile bootstrap: the images are drawn again with replacement, and the score of each draw is
computed as that of the data set is. On PanNuke the draws keep the number of images of each tissue, since its
scores are means over tissues.

Two models are compared on the same images. The test is Wilcoxon's signed-rank test, two-sided, on the differences
of the images' scores. Test sets have few images (14 in Kumar's), whose differences are not normal and often hold a
few large ones, which a t test would follow. The interval of the mean difference is a bootstrap of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsi_nuc.evaluation.protocol import ImageScore, mean
from wsi_nuc.types import Float64

METHOD = {
    "interval": "95 % percentile bootstrap over images; on PanNuke within each tissue",
    "test": "Wilcoxon signed-rank test on the differences of images, two-sided, not corrected for their number",
}
SHARE = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Interval:
    """A score of a data set and its 95 % interval. An image alone has none: its limits are NaN."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """A row against the row of reference, on the images of a data set that both have a score for."""

    row: str
    reference: str
    data: str
    score: str
    images: int
    difference: float
    """Mean over images of the row's score less that of the reference."""
    low: float
    high: float
    """95 % interval of the difference."""
    p: float
    """Of the signed-rank test. 1 where no image differs."""


def intervals(scores: Sequence[ImageScore], by_tissue: bool, draws: int, seed: int) -> dict[str, Interval]:
    """AJI, PQ and the F1 of detection; with `by_tissue` also PanNuke's bPQ and mPQ."""
    groups = np.array([score.group if by_tissue else "" for score in scores])
    weights = _draws(groups, draws, seed)
    once = np.ones((1, len(scores)))
    out = {kind: _interval(*(_mean(w, _values(scores, kind)) for w in (once, weights))) for kind in ("AJI", "PQ")}
    out["F1"] = _interval(*(_f1(w, scores) for w in (once, weights)))
    if by_tissue:
        for kind in ("bPQ", "mPQ"):
            values = _values(scores, kind)
            out[kind] = _interval(*(_mean_of_groups(w, values, groups) for w in (once, weights)))
    return out


def compared(
    row: str,
    reference: str,
    data: str,
    ours: Mapping[str, Sequence[ImageScore]],
    theirs: Mapping[str, Sequence[ImageScore]],
    kinds: Sequence[str],
    draws: int,
    seed: int,
) -> list[Paired]:
    """One record per kind of score. `ours` and `theirs` hold the scores of each image, one per split that saw
    it."""
    shared = sorted(set(ours) & set(theirs))
    out = []
    for kind in kinds:
        pairs = np.array(
            [[mean(image_score(score, kind) for score in of[name]) for of in (ours, theirs)] for name in shared]
        ).reshape(-1, 2)
        difference = pairs[:, 0] - pairs[:, 1]
        difference = difference[~np.isnan(difference)]
        if not len(difference):
            continue
        weights = _draws(np.zeros(len(difference)), draws, seed)
        whole = _interval(_mean(np.ones((1, len(difference))), difference), _mean(weights, difference))
        out.append(
            Paired(row, reference, data, kind, len(difference), whole.value, whole.low, whole.high, _p(difference))
        )
    return out


def image_score(score: ImageScore, kind: str) -> float:
    """The score of one image. bPQ and mPQ as PanNuke has them: NaN without a true nucleus."""
    if kind == "mPQ":
        return mean(p.pq for p in score.panoptic_by_class if p.tp + p.fn)
    if kind == "bPQ":
        return score.panoptic.pq if score.panoptic.tp + score.panoptic.fn else float("nan")
    return {"AJI": score.aji, "PQ": score.panoptic.pq, "F1": score.detection.f1}[kind]


def _values(scores: Sequence[ImageScore], kind: str) -> Float64:
    return np.array([image_score(score, kind) for score in scores], np.float64)


def _draws(groups: np.ndarray, draws: int, seed: int) -> Float64:
    """draws x images: how often each image is in each draw."""
    rng, weights = np.random.default_rng(seed), np.zeros((draws, len(groups)))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    return weights


def _mean(weights: Float64, values: Float64) -> Float64:
    """Of each draw: the mean of the values that are not NaN; NaN without any."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ np.where(known, values, 0) / (weights @ known), np.float64)


def _mean_of_groups(weights: Float64, values: Float64, groups: np.ndarray) -> Float64:
    of_groups = [_mean(weights[:, groups == group], values[groups == group]) for group in np.unique(groups)]
    return np.array([mean(draw) for draw in zip(*of_groups, strict=True)])


def _f1(weights: Float64, scores: Sequence[ImageScore]) -> Float64:
    """From counts summed over the images of each draw."""
    counts = np.array([[s.detection.tp, s.detection.fp, s.detection.fn] for s in scores], np.float64)
    tp, fp, fn = (weights @ counts).T
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * tp / (2 * tp + fp + fn), np.float64)


def _interval(whole: Float64, drawn: Float64) -> Interval:
    kept = drawn[~np.isnan(drawn)]
    low, high = np.percentile(kept, SHARE) if len(kept) else (np.nan, np.nan)
    return Interval(float(whole[0]), float(low), float(high))


def _p(difference: Float64) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference).pvalue) if difference.any() else 1.0
