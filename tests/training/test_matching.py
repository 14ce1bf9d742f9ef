"""Matching and losses against plain implementations of the paper's equations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.errors import UsageError
from wsi_nuc.models.promptnucseg.net import Proposed
from wsi_nuc.training.promptnucseg import losses
from wsi_nuc.training.promptnucseg.augment import Sample
from wsi_nuc.training.promptnucseg.batches import collate
from wsi_nuc.training.promptnucseg.config import LossConfig
from wsi_nuc.training.promptnucseg.losses import (
    edge_weights,
    match,
    match_nearest,
    prompter_losses,
    segmentor_losses,
)

seeds = st.integers(0, 10_000)


def proposal(seed: int, anchors: int, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(anchors, 2, generator=generator) * 40, torch.randn(anchors, classes + 1, generator=generator)


def nuclei(seed: int, count: int, classes: int = 2) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.uniform(0, 40, (count, 2)), rng.integers(-1, classes, count)])
    return torch.from_numpy(rows.astype(np.float32))


@given(seeds, st.integers(1, 6), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_no_other_pairing_weighs_more(seed: int, anchors: int, count: int) -> None:
    count = min(count, anchors)
    (xy, logits), points = proposal(seed, anchors), nuclei(seed, count)
    rows, columns = match(xy, logits, points, alpha=0.1)
    weights = edge_weights(xy, logits, points, 0.1)
    best = max(
        sum(float(weights[a, n]) for n, a in enumerate(pairing))
        for pairing in itertools.permutations(range(anchors), count)
    )
    assert float(weights[rows, columns].sum()) == pytest.approx(best, abs=1e-5)
    assert sorted(columns.tolist()) == list(range(count))
    assert len(set(rows.tolist())) == count


def test_weights_are_those_of_equation_3() -> None:
    (xy, logits), points = proposal(3, 5), nuclei(3, 4)
    probs = logits.softmax(-1)
    for a, (n, (x, y, kind)) in itertools.product(range(5), enumerate(points.tolist())):
        probability = 1 - probs[a, -1] if kind < 0 else probs[a, int(kind)]
        expected = float(probability) - 0.1 * math.hypot(float(xy[a, 0]) - x, float(xy[a, 1]) - y)
        assert float(edge_weights(xy, logits, points, 0.1)[a, n]) == pytest.approx(expected, abs=1e-4)


def test_more_nuclei_than_anchors_names_the_remedy() -> None:
    (xy, logits), points = proposal(0, 2), nuclei(0, 3)
    with pytest.raises(UsageError, match="smaller distance of anchors"):
        match(xy, logits, points, 0.1)


@given(seeds, st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_nearest_anchor_is_taken_at_most_once(seed: int, count: int) -> None:
    (xy, _), points = proposal(seed, 9), nuclei(seed, count)
    rows, columns = match_nearest(xy, points)
    assert len(set(rows.tolist())) == len(rows)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        distance = (xy - points[column, :2]).norm(dim=1)
        assert float(distance[row]) == pytest.approx(float(distance.min()), abs=1e-5)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_mask_losses_follow_their_definitions(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 8, 8, generator=generator) * 3
    target = torch.rand(3, 8, 8, generator=generator) > 0.7
    iou = torch.rand(3, generator=generator)
    actual = segmentor_losses(logits, iou, target, LossConfig())
    focal, dice, squares = [], [], []
    for z in range(3):
        p, t = (1 / (1 + np.exp(-logits[z].double().numpy()))), target[z].numpy()
        pt, alpha = np.where(t, p, 1 - p), np.where(t, 0.25, 0.75)
        focal.append((-alpha * (1 - pt) ** 2 * np.log(pt)).mean())
        dice.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
        inside = p > 0.5
        squares.append((float(iou[z]) - (inside & t).sum() / max(1, (inside | t).sum())) ** 2)
    assert float(actual["focal"]) == pytest.approx(20 * np.mean(focal), rel=1e-4)
    assert float(actual["dice"]) == pytest.approx(np.mean(dice), rel=1e-4)
    assert float(actual["iou"]) == pytest.approx(np.mean(squares), rel=1e-4, abs=1e-7)


def test_a_certain_right_mask_costs_nothing() -> None:
    target = torch.zeros(1, 16, 16, dtype=torch.bool)
    target[0, 4:9, 4:9] = True
    parts = segmentor_losses(torch.where(target, 30.0, -30.0), torch.ones(1), target, LossConfig())
    assert float(sum(parts.values())) < 1e-5


def test_without_a_mask_there_is_no_loss_but_a_gradient() -> None:
    logits = torch.zeros(0, 8, 8, requires_grad=True)
    parts = segmentor_losses(logits, torch.zeros(0), torch.zeros(0, 8, 8, dtype=torch.bool), LossConfig())
    assert all(value.item() == 0 for value in parts.values())
    parts["dice"].backward()


def sample(xy: list[tuple[float, float]] | None, region: bool = True) -> Sample:
    none = np.zeros(0, np.int64)
    points = None if xy is None else np.array(xy).reshape(-1, 2)
    return Sample(
        "one", np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), np.int32),
        np.zeros((256, 256), bool) if region else None,
        points, None if points is None else np.zeros(len(points), np.int64),
        np.zeros((0, 2, 2), np.float32), np.zeros((0, 2), np.int64), none, none,
    )  # fmt: skip


def as_proposed(xy: torch.Tensor, logits: torch.Tensor) -> Proposed:
    return Proposed(xy[None], logits[None], None, (256, 256))


@pytest.mark.parametrize("regression", ["l2", "squared"])
def test_prompter_losses_follow_equation_4(regression: str) -> None:
    xy, logits = torch.tensor([[10.0, 10], [50, 50], [90, 90]]), torch.randn(3, 2)
    batch = collate([sample([(53.5, 54.5)])])  # 53, 54 as indices: 5 px from the second anchor
    config = LossConfig(alpha=10, beta=0.3, gamma=0.5, regression=regression)
    parts = prompter_losses(as_proposed(xy, logits), 8, batch, config)
    log_q = logits.log_softmax(-1)
    expected = -(log_q[1, 0] + 0.3 * (log_q[0, 1] + log_q[2, 1])) / 3
    assert float(parts["class"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(parts["regression"]) == pytest.approx(0.5 * (5 if regression == "l2" else 25), rel=1e-5)


def test_an_exact_hit_has_a_finite_gradient() -> None:
    xy = torch.tensor([[20.0, 30.0]], requires_grad=True)
    batch = collate([sample([(20.5, 30.5)])])
    prompter_losses(as_proposed(xy, torch.zeros(1, 2)), 8, batch, LossConfig())["regression"].backward()
    assert xy.grad is not None
    assert bool(torch.isfinite(xy.grad).all())


def test_images_without_points_do_not_count_and_images_without_nuclei_do() -> None:
    xy, logits = torch.rand(4, 2) * 100, torch.randn(4, 2)
    empty = prompter_losses(as_proposed(xy, logits), 8, collate([sample([])]), LossConfig(beta=1))
    background = -logits.log_softmax(-1)[:, -1].mean()
    assert float(empty["class"]) == pytest.approx(float(background), rel=1e-5)
    assert float(empty["regression"]) == 0
    unknown = prompter_losses(as_proposed(xy, logits), 8, collate([sample(None)]), LossConfig())
    assert float(unknown["class"]) == float(unknown["regression"]) == 0


def test_the_region_of_an_image_counts_only_where_it_is_known() -> None:
    mask = torch.randn(2, 1, 64, 64)
    proposed = Proposed(torch.zeros(2, 4, 2), torch.zeros(2, 4, 2), mask, (256, 256))
    both = collate([sample([]), sample([], region=False)])
    alone = Proposed(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2), mask[:1], (256, 256))
    of_one = prompter_losses(alone, 8, collate([sample([])]), LossConfig())["mask"]
    of_both = prompter_losses(proposed, 8, both, LossConfig())["mask"]
    assert float(of_both) == pytest.approx(float(of_one), rel=1e-5)
    assert float(of_one) > 0


def test_class_focal_loss_without_focus_is_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, types = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    monkeypatch.setattr(losses, "FOCAL_GAMMA", 0.0)
    expected = torch.nn.functional.cross_entropy(logits, types)
    assert float(losses.focal_classes(logits, types).mean()) == pytest.approx(float(expected), rel=1e-5)
