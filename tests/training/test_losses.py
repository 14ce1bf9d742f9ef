"""Each loss term of both recipes against the formulas written out in numpy, on fixed inputs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.training.test_matching import sample
from wsi_nuc.models.promptnucseg.net import Proposed
from wsi_nuc.training.promptnucseg.batches import collate
from wsi_nuc.training.promptnucseg.config import LossConfig, TrainConfig
from wsi_nuc.training.promptnucseg.losses import Losses, prompter_losses, segmentor_losses

Array = npt.NDArray[Any]
OMEGA, ALPHA, GAMMA = 20.0, 0.1, 5e-3
BETA = {"kumar": 0.2, "cpm17": 0.25, "pannuke": 0.4}
PX = 256


def losses_of(recipe: str, preset: str = "pannuke") -> LossConfig:
    given = {"recipe": recipe, "preset": preset, "out": "o", "classes": ["a", "b", "c"]}
    return TrainConfig(**given, data={"train": [{"path": "d"}]}).loss


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def softmax(x: Array) -> Array:
    e = np.exp(x.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


def focal(logits: Array, target: Array, alpha: float | None) -> Array:
    """FL = -alpha_t (1 - p_t)^2 log p_t"""
    p = sigmoid(logits)
    p_t = np.where(target, p, 1 - p)
    alpha_t = 1.0 if alpha is None else np.where(target, alpha, 1 - alpha)
    return -alpha_t * (1 - p_t) ** 2 * np.log(p_t)


def masks() -> tuple[Array, Array, Array]:
    """Logits, truth and predicted IoU of five masks, one of them without a pixel of truth."""
    rng = np.random.default_rng(5)
    target = np.zeros((5, 24, 24), bool)
    for z, (y, x, edge) in enumerate([(2, 3, 9), (10, 4, 6), (15, 15, 4), (0, 0, 24)]):
        target[z, y : y + edge, x : x + edge] = True
    logits = rng.normal(0, 2, target.shape) + np.where(target, 1.5, -1.5)
    return logits.astype(np.float32), target, rng.random(5).astype(np.float32)


def of_masks(config: LossConfig, logits: torch.Tensor) -> Losses:
    _, target, predicted = masks()
    return segmentor_losses(logits, torch.from_numpy(predicted), torch.from_numpy(target), config)


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=1e-5)


def test_paper_masks_are_equation_2_with_the_losses_of_sam() -> None:
    logits, t, predicted = masks()
    losses, p = of_masks(losses_of("paper"), torch.from_numpy(logits)), sigmoid(logits)
    sums = (1, 2)
    assert float(losses["focal"]) == near(OMEGA * focal(logits, t, 0.25).mean())
    dice = 1 - (2 * (p * t).sum(sums) + 1) / (p.sum(sums) + t.sum(sums) + 1)
    assert float(losses["dice"]) == near(dice.mean())
    inside = logits > 0
    actual = (inside & t).sum(sums) / (inside | t).sum(sums)
    assert float(losses["iou"]) == near(((predicted - actual) ** 2).mean())


def released_iou(logits: Array) -> float:
    _, t, predicted = masks()
    p, sums = sigmoid(logits), (1, 2)
    both = (p * t).sum(sums)
    soft = (both + 1e-7) / (p.sum(sums) + t.sum(sums) - both + 1e-7)
    return float(((soft - predicted) ** 2).mean())


def test_released_masks_are_those_of_the_authors_program() -> None:
    logits, t, _ = masks()
    losses, p = of_masks(losses_of("released"), torch.from_numpy(logits)), sigmoid(logits)
    assert float(losses["focal"]) == near(OMEGA * focal(logits, t, None).mean())
    assert float(losses["dice"]) == near(1 - 2 * (p * t).sum() / (p.sum() + t.sum()))
    assert float(losses["iou"]) == near(released_iou(logits))


def test_only_the_released_iou_teaches_the_masks() -> None:
    start = masks()[0]
    slopes = {}
    for recipe in ("paper", "released"):
        logits = torch.from_numpy(start).requires_grad_()
        loss = of_masks(losses_of(recipe), logits)["iou"]
        slopes[recipe] = torch.autograd.grad(loss, logits, allow_unused=True)[0] if loss.requires_grad else None
    assert slopes["paper"] is None
    assert slopes["released"] is not None
    for place in [(0, 4, 5), (2, 15, 15), (4, 0, 7)]:
        step = np.zeros(start.shape)
        step[place] = 1e-4
        expected = (released_iou(start + step) - released_iou(start - step)) / 2e-4
        assert float(slopes["released"][place]) == pytest.approx(expected, rel=1e-3)


def test_masks_without_any_pixel_of_truth_cost_no_dice_of_the_batch() -> None:
    nothing, logits = torch.zeros(2, 8, 8, dtype=torch.bool), torch.randn(2, 8, 8)
    assert float(segmentor_losses(logits, torch.ones(2), nothing, losses_of("released"))["dice"]) == 0


def scene() -> tuple[Array, Array, list[Array], Array, Array]:
    """Two images: anchors, logits, nuclei (x, y, class), logits of the region mask and the region."""
    rng = np.random.default_rng(8)
    xy = rng.uniform(0, 60, (2, 6, 2)).astype(np.float32)
    logits = rng.normal(0, 1.5, (2, 6, 4)).astype(np.float32)
    nuclei = [np.column_stack([rng.uniform(0, 60, (n, 2)), rng.integers(0, 3, n)]) for n in (3, 2)]
    region = rng.random((2, PX, PX)) > 0.7
    return xy, logits, nuclei, rng.normal(0, 2, (2, 1, PX, PX)).astype(np.float32), region


def batch_of_scene() -> Any:
    samples = []
    for nuclei, region in zip(scene()[2], scene()[4], strict=True):
        made = sample([(x + 0.5, y + 0.5) for x, y, _ in nuclei.tolist()])
        made.point_types[:] = nuclei[:, 2]  # type: ignore[index]
        made.region[:] = region  # type: ignore[index]
        samples.append(made)
    return collate(samples)


def pairs(xy: Array, probs: Array, nuclei: Array) -> tuple[int, ...]:
    """Eq. 3 by trying everything: the anchor of each nucleus."""

    def weight(anchors: tuple[int, ...]) -> float:
        return sum(
            probs[a, int(kind)] - ALPHA * np.hypot(xy[a, 0] - x, xy[a, 1] - y)
            for a, (x, y, kind) in zip(anchors, nuclei, strict=True)
        )

    return max(itertools.permutations(range(len(xy)), len(nuclei)), key=weight)


def terms(beta: float) -> tuple[list[float], list[float], list[float]]:
    """Distances of the matched, -log q of the matched, and beta * -log q(background) of the others."""
    xy, logits, nuclei, _, _ = scene()
    distances: list[float] = []
    matched: list[float] = []
    others: list[float] = []
    for anchors, q, points in zip(xy.astype(np.float64), softmax(logits), nuclei, strict=True):
        chosen = pairs(anchors, q, points)
        distances += [float(np.hypot(*(anchors[a] - p[:2]))) for a, p in zip(chosen, points, strict=True)]
        matched += [-float(np.log(q[a, int(p[2])])) for a, p in zip(chosen, points, strict=True)]
        others += [-beta * float(np.log(q[a, -1])) for a in range(len(q)) if a not in chosen]
    return distances, matched, others


@pytest.mark.parametrize("preset", list(BETA))
@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_the_prompter_losses_are_equations_4_to_6_or_those_of_the_authors_program(
    recipe: str, preset: str
) -> None:
    xy, logits, _, mask_logits, region = scene()
    proposed = Proposed(*(torch.from_numpy(part) for part in (xy, logits, mask_logits)), (PX, PX))
    losses = prompter_losses(proposed, 8, batch_of_scene(), losses_of(recipe, preset))
    beta = BETA[preset]
    distances, matched, others = terms(beta)
    if recipe == "paper":
        expected = {
            "regression": GAMMA * float(np.mean(distances)),
            "class": (sum(matched) + sum(others)) / (len(matched) + len(others)),
            "mask": float(focal(mask_logits[:, 0], region, 0.25).mean()),
        }
    else:
        expected = {
            "regression": GAMMA * float(np.mean(np.square(distances))),
            "class": (sum(matched) + sum(others)) / (len(matched) + beta * len(others)),
            "mask": float(focal(mask_logits[:, 0], region, None).mean()),
        }
    assert {name: float(value) for name, value in losses.items()} == {n: near(v) for n, v in expected.items()}


def test_a_prompter_of_one_class_takes_nuclei_of_all() -> None:
    xy, logits, _, _, _ = scene()
    two = torch.from_numpy(logits[:, :, [0, 3]])
    proposed = Proposed(torch.from_numpy(xy), two, None, (PX, PX))
    batch = batch_of_scene()
    assert max(int(points[:, 2].max()) for points in batch.points) > 0
    of_classes = prompter_losses(proposed, 8, batch, losses_of("paper"))
    for points in batch.points:
        points[:, 2] = 0
    of_one = prompter_losses(proposed, 8, batch, losses_of("paper"))
    assert {n: float(v) for n, v in of_classes.items()} == {n: float(v) for n, v in of_one.items()}
