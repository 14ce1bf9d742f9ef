"""Matching of points and the F1 of classes against brute force, with ties, exact radii and empty sides."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation import bruteforce
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.detection import (
    ClassCounts,
    Detection,
    Points,
    class_counts,
    detection,
    detection_by_class,
    match_greedily,
    match_optimally,
    radius_px,
)

# Integer points within a few radii give many ties and many distances that are exactly the radius.
POINT = st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.1, 0.5, 0.9]), st.integers(-1, 1))
POINTS = st.lists(POINT, max_size=7)


def points(rows: list[tuple[float, ...]]) -> Points:
    table = np.array(rows, float).reshape(-1, 4)
    return Points(table[:, :2], table[:, 2], table[:, 3].astype(np.int64))


@given(POINTS, POINTS, st.sampled_from([1.0, 5.0]))
@settings(max_examples=200, deadline=None)
def test_greedy_matching_equals_brute_force(truth_rows: list, rows: list, radius: float) -> None:
    truth, predicted = points(truth_rows), points(rows)
    partner = match_greedily(truth.xy, predicted.xy, predicted.score, radius)
    assert partner.tolist() == bruteforce.greedy(truth.xy, predicted.xy, predicted.score, radius)


@given(POINTS, POINTS)
@settings(max_examples=100, deadline=None)
def test_detection_counts_and_scores_follow_from_the_matching(truth_rows: list, rows: list) -> None:
    truth, predicted = points(truth_rows), points(rows)
    counts = detection(truth.xy, predicted.xy, predicted.score, 3.0)
    hits = sum(p >= 0 for p in bruteforce.greedy(truth.xy, predicted.xy, predicted.score, 3.0))
    assert counts == Detection(hits, len(rows) - hits, len(truth_rows) - hits)
    if hits:
        p, r = hits / len(rows), hits / len(truth_rows)
        assert (counts.precision, counts.recall) == (p, r)
        assert math.isclose(counts.f1, 2 * p * r / (p + r))


@given(st.lists(POINT, max_size=4), st.lists(POINT, max_size=4))
@settings(max_examples=80, deadline=None)
def test_optimal_matching_has_the_least_total_distance(truth_rows: list, rows: list) -> None:
    truth, predicted = points(truth_rows), points(rows)
    partner = match_optimally(truth.xy, predicted.xy, 1e9)
    n = min(len(rows), len(truth_rows))
    assert (partner >= 0).sum() == n
    total = sum(np.hypot(*(truth.xy[t] - predicted.xy[j])) for j, t in enumerate(partner) if t >= 0)
    totals = [
        sum(np.hypot(*(truth.xy[t] - predicted.xy[j])) for j, t in zip(js, ts, strict=True))
        for js in itertools.combinations(range(len(rows)), n)
        for ts in itertools.permutations(range(len(truth_rows)), n)
    ]
    assert math.isclose(total, min(totals), abs_tol=1e-9)


@given(POINTS, POINTS)
@settings(max_examples=100, deadline=None)
def test_f1_of_a_class_equals_brute_force_in_both_readings(truth_rows: list, rows: list) -> None:
    truth, predicted = points(truth_rows), points(rows)
    partner = match_optimally(truth.xy, predicted.xy, 3.0)
    hover = class_counts(truth, predicted, partner, 2)
    plain = detection_by_class(truth, predicted, 3.0, 2)
    for c in range(2):
        slow = bruteforce.hover_f1(truth.types.tolist(), predicted.types.tolist(), partner.tolist(), c)
        assert math.isclose(hover[c].f1, slow) or (math.isnan(hover[c].f1) and math.isnan(slow))
        true, called = truth.of_class(c), predicted.of_class(c)
        hits = sum(p >= 0 for p in bruteforce.greedy(true.xy, called.xy, called.score, 3.0))
        assert plain[c] == Detection(hits, len(called.xy) - hits, len(true.xy) - hits)


@given(POINTS.filter(len))
@settings(max_examples=50, deadline=None)
def test_the_truth_itself_scores_one(rows: list) -> None:
    distinct = list({(x, y): (x, y, s, max(t, 0)) for x, y, s, t in rows}.values())
    truth = points(distinct)
    assert detection(truth.xy, truth.xy, truth.score, 12.0 / 100).f1 == 1
    for c in set(truth.types.tolist()):
        assert detection_by_class(truth, truth, 0.1, 2)[c].f1 == 1
        assert class_counts(truth, truth, match_optimally(truth.xy, truth.xy, 0.1), 2)[c].f1 == 1


def test_a_confident_point_takes_the_truth_before_a_nearer_one() -> None:
    truth, predicted = np.array([[10.0, 10.0]]), np.array([[10.0, 10.0], [14.0, 10.0]])
    assert match_greedily(truth, predicted, np.array([0.2, 0.9]), 5.0).tolist() == [-1, 0]


def test_empty_sides() -> None:
    assert math.isnan(Detection().f1)
    assert math.isnan(Detection().precision)
    assert math.isnan(ClassCounts().f1)
    only_predicted, only_true = Detection(0, 3, 0), Detection(0, 0, 3)
    for counts in (only_predicted, only_true):
        assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)


def test_the_radius_is_three_microns_at_every_magnification() -> None:
    assert (radius_px(0.25), radius_px(0.5)) == (12, 6)
    for wrong in (None, 0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="mpp"):
            radius_px(wrong)
