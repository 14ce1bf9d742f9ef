"""Many small heads, learned at once: for each strength of the penalty one per fold, which does not see that fold,
and one that sees all.

A head also learns to tell nuclei without a dot, which is one class more. That teaches it more of what nuclei look
like; in the file this class is left out, and the others share its probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.evaluation.detection import Detection
from wsi_nuc.evaluation.protocol import mean
from wsi_nuc.training.classes.config import ClassesConfig
from wsi_nuc.training.classes.nuclei import Nuclei
from wsi_nuc.training.loop import Losses, Row
from wsi_nuc.types import Float32, Int64

LEAST_SPREAD = 1e-4  # a channel that hardly differs between nuclei is not used


@dataclass(frozen=True, slots=True)
class Batch:
    """Some nuclei."""

    ids: tuple[str, ...]
    """No names: a batch holds nuclei of all images."""
    seen: torch.Tensor
    """B x F, of mean 0 and spread 1."""
    kind: torch.Tensor
    """B classes."""
    fold: torch.Tensor
    """B numbers of folds."""

    def to(self, device: torch.device) -> Batch:
        return Batch(self.ids, self.seen.to(device), self.kind.to(device), self.fold.to(device))


@dataclass(frozen=True, slots=True)
class Learned:
    """The nuclei as heads learn from them."""

    seen: torch.Tensor
    """N x F, of mean 0 and spread 1."""
    kind: torch.Tensor
    fold: torch.Tensor
    first_view: int
    middle: Float32
    """F: the mean of each channel."""
    scale: Float32
    """F: what a channel is multiplied by; 0 for one that is not used."""

    @classmethod
    def of(cls, nuclei: Nuclei, folds: int, seed: int) -> Learned:
        middle = nuclei.seen[: nuclei.first_view].mean(0)
        spread = nuclei.seen[: nuclei.first_view].std(0)
        scale = np.where(spread > LEAST_SPREAD, 1 / np.maximum(spread, LEAST_SPREAD), 0).astype(np.float32)
        seen = torch.from_numpy((nuclei.seen - middle) * scale)
        fold = torch.from_numpy(folds_of(nuclei.group, folds, seed))
        return cls(seen, torch.from_numpy(nuclei.kind), fold, nuclei.first_view, middle, scale)

    def batches(self, config: ClassesConfig, first: int, rank: int, world: int) -> Iterator[Batch]:
        for step in range(first, config.steps):
            rng = np.random.default_rng((config.seed, step))
            rows = torch.from_numpy(rng.integers(0, len(self.kind), config.batch)[rank::world])
            yield Batch((), self.seen[rows], self.kind[rows], self.fold[rows])


def folds_of(group: Int64, folds: int, seed: int) -> Int64:
    """The fold of each nucleus. Groups stay whole: the largest are dealt out first, each to the smallest fold."""
    sizes = np.bincount(group)
    numbers, filled = np.zeros(len(sizes), np.int64), np.zeros(folds, np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    for number in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        numbers[number] = np.argmin(filled)
        filled[numbers[number]] += sizes[number]
    return numbers[group]


class Heads(nn.Module):
    """M = strengths x (folds + 1) heads with the same first weights."""

    def __init__(self, channels: int, config: ClassesConfig, class_weight: Sequence[float]) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        count, hidden = len(config.strengths) * (config.folds + 1), config.hidden
        first = torch.randn(channels, hidden) * math.sqrt(2 / channels)
        last = torch.randn(hidden, len(config.classes) + 1) / math.sqrt(hidden)
        self.first, self.last = (nn.Parameter(start.repeat(count, 1, 1)) for start in (first, last))
        self.first_bias, self.last_bias = (
            nn.Parameter(torch.zeros(count, 1, start.shape[1])) for start in (first, last)
        )
        self.strengths, self.folds = config.strengths, config.folds
        self.register_buffer("class_weight", torch.tensor([*class_weight, 1.0]))

    def logits(self, seen: torch.Tensor) -> torch.Tensor:
        """M x B x (C + 1)."""
        return F.relu(seen @ self.first + self.first_bias) @ self.last + self.last_bias

    def forward(self, batch: Batch) -> Losses:
        logits = self.logits(batch.seen)
        heads, rows = logits.shape[:2]
        loss = F.cross_entropy(logits.flatten(0, 1), batch.kind.repeat(heads), reduction="none").view(heads, rows)
        sees = torch.arange(self.folds + 1, device=loss.device)[:, None] != batch.fold
        class_weight: Any = self.class_weight
        weight = sees.repeat(len(self.strengths), 1) * class_weight[batch.kind]
        strength = torch.tensor(self.strengths, device=loss.device).repeat_interleave(self.folds + 1)
        squares = self.first.square().sum((1, 2)) + self.last.square().sum((1, 2))
        return {
            "classes": ((loss * weight).sum(1) / weight.sum(1).clamp(min=1e-6)).mean(),
            "weights": (strength * squares).mean(),
        }

    @torch.no_grad()
    def held_out(self, learned: Learned) -> tuple[int, Row]:
        """The strength with the least loss on dots that its heads have not seen, and how good these are there."""
        classes = self.last.shape[2] - 1
        rows = torch.nonzero(learned.kind[: learned.first_view] < classes)[:, 0]
        device = self.first.device
        kind, fold = learned.kind[rows].to(device), learned.fold[rows].to(device)
        logits = self.logits(learned.seen[rows].to(device))
        logits = logits.view(len(self.strengths), self.folds + 1, *logits.shape[1:])
        own = logits[:, fold, torch.arange(len(fold), device=device), :classes]
        losses = torch.stack([F.cross_entropy(of_strength, kind) for of_strength in own])
        best = int(losses.argmin())
        said = own[best].argmax(1)
        counts = [
            Detection(*(int(n.sum()) for n in ((said == c) & (kind == c), (said == c) & (kind != c),
                                               (said != c) & (kind == c))))
            for c in range(classes)
        ]  # fmt: skip
        f1 = mean(count.f1 for count in counts)
        return best, {
            "f1": f1,
            "accuracy": float((said == kind).float().mean()),
            "held_out_loss": float(losses[best]),
        }

    @torch.no_grad()
    def head(self, strength: int, learned: Learned, fine: int) -> Mapping[str, torch.Tensor]:
        """The state of a `PooledClasses` from the head of that strength that sees all."""
        number = strength * (self.folds + 1) + self.folds
        first = self.first[number].cpu() * torch.from_numpy(learned.scale)[:, None]
        bias = self.first_bias[number, 0].cpu() - torch.from_numpy(learned.middle) @ first
        matrix = first.T[:, :, None, None]
        return {
            "fine.weight": matrix[:, :fine],
            "fine.bias": bias,
            "coarse.weight": matrix[:, fine:],
            "out.weight": self.last[number].T[:-1].cpu(),
            "out.bias": self.last_bias[number, 0, :-1].cpu(),
        }
