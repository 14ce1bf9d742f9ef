"""Every score of masks equals its brute-force version, perfect predictions score 1, and empty images as stated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.evaluation import bruteforce
from wsi_nuc.datasets.overlaps import (
    compact,
    overlaps_of_labels,
    overlaps_of_polygons,
)
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.metrics import (
    Panoptic,
    aji,
    aji_plus,
    best_assignment,
    dice,
    dice_of_polygons,
    panoptic,
    panoptic_by_class,
)

# Small images with few ids, some of them large, have overlaps of every kind, ties included.
IDS = st.sampled_from([0, 0, 1, 2, 7, 70_000])
SMALL = arrays(np.int32, (4, 5), elements=IDS)


def blobs(seed: int, shift: int = 0) -> np.ndarray:
    """Rectangles, some of which overlap. They resemble nuclei more than independent pixels do, and some IoUs are
    over 0.5."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 40), np.int32)
    for i in range(int(rng.integers(1, 6))):
        x, y, w, h = rng.integers(0, 30), rng.integers(0, 30), rng.integers(3, 11), rng.integers(3, 11)
        dx, dy = rng.integers(0, shift + 1, 2)
        labels[y + dy : y + dy + h, x + dx : x + dx + w] = i + 1
    return labels


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)


def check_all(truth: np.ndarray, predicted: np.ndarray) -> None:
    overlaps = overlaps_of_labels(truth, predicted)
    t, p = bruteforce.masks(truth), bruteforce.masks(predicted)
    assert same(aji(overlaps), bruteforce.aji(t, p))
    assert any(same(aji_plus(overlaps), value) for value in bruteforce.all_aji_plus(t, p))
    assert same(dice(overlaps), bruteforce.dice(truth, predicted))
    counts, (tp, fp, fn, iou_sum) = panoptic(overlaps), bruteforce.panoptic(t, p)
    assert (counts.tp, counts.fp, counts.fn) == (tp, fp, fn)
    assert math.isclose(counts.iou_sum, iou_sum, abs_tol=1e-12)
    if tp + fp + fn:
        assert same(counts.dq, tp / (tp + fp / 2 + fn / 2))
        assert same(counts.pq, iou_sum / (tp + fp / 2 + fn / 2))


@given(SMALL, SMALL)
@settings(max_examples=150, deadline=None)
def test_scores_equal_brute_force_on_arbitrary_label_images(truth: np.ndarray, predicted: np.ndarray) -> None:
    check_all(truth, predicted)


@given(st.integers(0, 10_000), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_scores_equal_brute_force_on_blobs(seed: int, shift: int) -> None:
    check_all(blobs(seed), blobs(seed, shift))


@given(SMALL.filter(lambda a: a.any()), st.permutations([1, 2, 7, 70_000]))
@settings(max_examples=50, deadline=None)
def test_a_perfect_prediction_scores_one_whatever_its_ids(truth: np.ndarray, ids: list[int]) -> None:
    predicted = np.zeros_like(truth)
    for old, new in zip([1, 2, 7, 70_000], ids, strict=True):
        predicted[truth == old] = new
    overlaps = overlaps_of_labels(truth, predicted)
    counts = panoptic(overlaps)
    assert (aji(overlaps), aji_plus(overlaps), dice(overlaps)) == (1, 1, 1)
    assert (counts.dq, counts.sq, counts.pq) == (1, 1, 1)


@given(st.integers(0, 10_000), st.data())
@settings(max_examples=80, deadline=None)
def test_scores_of_a_class_are_those_of_its_nuclei_alone(seed: int, data: st.DataObject) -> None:
    truth, predicted = blobs(seed), blobs(seed, 2)
    overlaps = overlaps_of_labels(truth, predicted)
    kinds = st.integers(-1, 2)
    tt = np.array(data.draw(st.lists(kinds, min_size=len(overlaps.truth_ids), max_size=len(overlaps.truth_ids))))
    n = len(overlaps.predicted_ids)
    pt = np.array(data.draw(st.lists(kinds, min_size=n, max_size=n)))
    for c, counts in enumerate(panoptic_by_class(overlaps, tt, pt, 3)):
        only_t = [truth == i for i, k in zip(overlaps.truth_ids, tt, strict=True) if k == c]
        only_p = [predicted == i for i, k in zip(overlaps.predicted_ids, pt, strict=True) if k == c]
        tp, fp, fn, iou_sum = bruteforce.panoptic(only_t, only_p)
        assert (counts.tp, counts.fp, counts.fn) == (tp, fp, fn)
        assert math.isclose(counts.iou_sum, iou_sum, abs_tol=1e-12)


def test_nothing_on_both_sides_is_no_evidence_and_nothing_on_one_side_is_zero() -> None:
    nothing, something = np.zeros((4, 4), np.int32), np.ones((4, 4), np.int32)
    both = overlaps_of_labels(nothing, nothing)
    scores = [aji(both), aji_plus(both), dice(both), panoptic(both).dq, panoptic(both).sq, panoptic(both).pq]
    assert all(math.isnan(value) for value in scores)
    for truth, predicted in [(nothing, something), (something, nothing)]:
        overlaps = overlaps_of_labels(truth, predicted)
        counts = panoptic(overlaps)
        assert (aji(overlaps), aji_plus(overlaps), dice(overlaps), counts.dq, counts.sq, counts.pq) == (0,) * 6


def test_an_iou_of_exactly_half_is_not_a_match() -> None:
    truth, predicted = np.zeros((1, 4), int), np.zeros((1, 4), int)
    truth[0, :2], predicted[0, :1] = 1, 1
    assert panoptic(overlaps_of_labels(truth, predicted)) == Panoptic(0, 1, 1, 0.0)


def test_a_long_chain_of_touching_nuclei_is_assigned_as_a_whole() -> None:
    """Greedy pairing fails here: the middle prediction overlaps the true nucleus on its left a little more."""
    truth = np.repeat([1, 2, 3], 10)[None]
    predicted = np.roll(np.repeat([1, 2, 3], 10), 4)[None]
    overlaps = overlaps_of_labels(truth, predicted)
    pairs = best_assignment(overlaps)
    assert sorted(zip(overlaps.truth[pairs], overlaps.predicted[pairs], strict=True)) == [(0, 0), (1, 1), (2, 2)]
    assert aji_plus(overlaps) in bruteforce.all_aji_plus(bruteforce.masks(truth), bruteforce.masks(predicted))


@given(arrays(np.uint64, (3, 3), elements=st.sampled_from([0, 3, 2**40, 2**62])))
@settings(max_examples=30, deadline=None)
def test_compact_keeps_order_and_background_of_any_ids(labels: np.ndarray) -> None:
    rows, ids = compact(labels)
    assert np.array_equal(np.concatenate([[0], ids])[rows], labels.astype(np.int64))


@pytest.mark.parametrize("labels", [np.full((2, 2), -1), np.ones((2, 2)), np.ones((2, 2), bool)])
def test_what_is_not_a_label_image_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(UsageError, match="needs integers >= 0"):
        compact(labels)


def test_images_of_different_size_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2, 2\).*\(2, 3\)"):
        overlaps_of_labels(np.zeros((2, 2), int), np.zeros((2, 3), int))


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 6)] * 2), max_size=4), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_polygons_score_as_the_pixels_that_they_cover(boxes: list[tuple[int, ...]], shift: int) -> None:
    """For boxes on the pixel grid, exact areas are pixel counts, also where nuclei of one side overlap."""

    def masks_of(dx: int) -> list[np.ndarray]:
        out = []
        for x, y, w, h in boxes:
            mask = np.zeros((24, 24), bool)
            mask[y : y + h, x + dx : x + dx + w] = True
            out.append(mask)
        return out

    truth = np.array([shapely.box(x, y, x + w, y + h) for x, y, w, h in boxes], object)
    predicted = np.array([shapely.box(x + shift, y, x + shift + w, y + h) for x, y, w, h in boxes], object)
    overlaps = overlaps_of_polygons(truth, predicted)
    t, p = masks_of(0), masks_of(shift)
    assert same(aji(overlaps), bruteforce.aji(t, p))
    assert any(same(aji_plus(overlaps), value) for value in bruteforce.all_aji_plus(t, p))
    union_t, union_p = np.any(t, axis=0), np.any(p, axis=0)
    assert same(dice_of_polygons(truth, predicted), bruteforce.dice(np.asarray(union_t), np.asarray(union_p)))
