"""The losses of InstaSAM (Eqs. 5 and 6), and the pseudo-labels that they are computed against."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.net import Asked
from wsi_nuc.models.compact.settings import POINT_STRIDE
from wsi_nuc.models.instasam.build import Net
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.training.instasam.config import InstaSamConfig
from wsi_nuc.training.instasam.crops import Batch
from wsi_nuc.training.instasam.pseudo import IGNORED, distance_maps, refined
from wsi_nuc.training.loop import Losses


class LossNet(nn.Module):
    """From pixels and dots to the losses."""

    def __init__(self, net: Net, config: InstaSamConfig) -> None:
        super().__init__()
        self.net, self._config = net, config
        self.labeller = deepcopy(net).requires_grad_(False) if config.refresh > 1 else None
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Losses:
        pixels = normalise(batch.rgb).contiguous(memory_format=torch.channels_last)
        asked = Asked(batch.row, batch.xy, batch.negative)
        seen = self.net(pixels)
        maps = seen.maps
        if len(batch.row):
            chosen = torch.nonzero(batch.learned)[:, 0]
            wide, origin = self.net.masks(seen, asked, wanted=chosen)
            masks = mask_loss(
                wide, *true_windows(batch.first, asked.row[chosen], chosen + 1, origin, wide.shape[1])
            )
            labels = self._labels(batch, asked, pixels, seen)
        else:
            masks, labels = maps.sum() * 0, batch.first
        weights = self._config.loss
        return {
            "masks": weights.masks * masks,
            "foreground": weights.foreground * foreground_loss(maps[:, 0], labels, batch.known),
            "distances": weights.distances * distance_loss(maps[:, 1:], labels),
            "classes": weights.classes * class_loss(seen.classes.float(), labels, batch.kind),
        }

    def _labels(self, batch: Batch, asked: Asked, pixels: torch.Tensor, seen: Any) -> torch.Tensor:
        """B x S x S: what foreground, distances and classes are learned from."""
        if self._config.learned == "first":
            return batch.first
        with torch.no_grad():
            net = self.net
            if self.labeller is not None:
                if int(self.steps) % self._config.refresh == 0:
                    self.labeller.load_state_dict(self.net.state_dict())
                self.steps += 1
                net = self.labeller.eval()
                seen = net(pixels)
            wide, origin = net.masks(seen, asked)
            shape = (len(batch.ids), batch.first.shape[1], batch.first.shape[2])
            return refined(wide, origin, asked.row, shape, self._config.pseudo).labels


def true_windows(
    labels: torch.Tensor, row: torch.Tensor, ids: torch.Tensor, origin: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """N x side x side: where the windows' labels are `ids`, and which of their pixels are certain."""
    steps = torch.arange(side, device=origin.device)
    x, y = (origin[:, i, None] + steps for i in (0, 1))
    height, width = labels.shape[1:]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    near = labels[row[:, None, None], y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
    return ((near == ids[:, None, None]) & inside).float(), (inside & (near != IGNORED)).float()


def mask_loss(logits: torch.Tensor, truth: torch.Tensor, certain: torch.Tensor) -> torch.Tensor:
    """BCE + IoU of the masks that have a first label (Eq. 5). Each counts the same, whatever its size."""
    real = (truth.sum((1, 2)) > 0).float()
    cost = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * certain
    cost = cost.sum((1, 2)) / certain.sum((1, 2)).clamp(min=1)
    probs = logits.sigmoid() * certain
    common = (probs * truth).sum((1, 2))
    iou = common / ((probs + truth).sum((1, 2)) - common).clamp(min=1e-6)
    return ((cost + 1 - iou) * real).sum() / real.sum().clamp(min=1)


def foreground_loss(logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """BCE + IoU over the certain pixels (Eq. 6). Background counts only where it is known."""
    truth = (labels > 0).float()
    weight = ((labels > 0) | ((labels == 0) & known)).float()
    cost = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probs = logits.sigmoid() * weight
    common = (probs * truth).sum()
    iou = (common + 1) / ((probs + truth).sum() - common + 1)
    return (cost * weight).sum() / weight.sum().clamp(min=1) + 1 - iou


def distance_loss(maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """L1 over the pixels of whole nuclei (Eq. 6)."""
    truth, known = distance_maps(labels)
    cost = (maps - truth).abs().mean(1)
    return (cost * known).sum() / known.sum().clamp(min=1)


def class_loss(logits: torch.Tensor, labels: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """Cross-entropy at every cell at stride 4 of a nucleus whose class is known."""
    half = POINT_STRIDE // 2
    cells = labels[:, half::POINT_STRIDE, half::POINT_STRIDE]
    # Of background (0) and of what is ignored (-1, which counts from the end) no class is known.
    unknown = kind.new_full((1,), -1)
    wanted = torch.cat([unknown, kind, unknown])[cells]
    if not bool((wanted >= 0).any()):
        return logits.sum() * 0
    return F.cross_entropy(logits, wanted, ignore_index=-1)
