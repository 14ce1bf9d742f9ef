"""Masks of the wanted prompts, each with the nearest other prompt of its tile as the negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from wsi_nuc.models.base import Fetch, Later
from wsi_nuc.models.compact.net import Asked, Maps, PooledClasses
from wsi_nuc.models.compact.network import Network
from wsi_nuc.models.compact.prompter import asked_of
from wsi_nuc.models.compact.settings import MASK_STRIDE, UseSettings
from wsi_nuc.models.compact.team import AnyNet
from wsi_nuc.models.finite import refuse_non_finite
from wsi_nuc.models.torch_ops import chunks
from wsi_nuc.types import Float32, Float64, Int64, MaskCrops, Prompts

PROMPTS_PER_CALL = 64


@dataclass(frozen=True, slots=True)
class Part:
    """What one call gave for n prompts, on the device."""

    mask: torch.Tensor
    """n x h x h, 0 or 1."""
    origin: torch.Tensor
    """n x 2 tile pixels: the first pixel (x, y) of each mask."""
    large: torch.Tensor
    """n: whether the mask has at least the least area."""
    iou: torch.Tensor
    """n predicted IoUs."""
    class_probs: torch.Tensor
    """n x C."""
    total: torch.Tensor
    """One number, the sum of the raw outputs: not yet checked."""
    prompt: Int64
    """n indices of prompts, on the host."""


def segment(
    network: Network, maps: Sequence[Maps], prompts: Prompts, wanted: Sequence[int]
) -> Fetch[Sequence[MaskCrops]]:
    index, parts = np.asarray(wanted, np.int64), []
    with torch.inference_mode():
        for row, of_tile in enumerate(maps):
            here = index[prompts.row[index] == row]
            negative = nearest_others(prompts.xy_tile, here, np.flatnonzero(prompts.row == row))
            asked = asked_of(prompts, here, negative, network.device.torch_device)
            for rows, real in chunks(range(len(here)), PROMPTS_PER_CALL):
                parts.append(_call(network, of_tile, here[rows[:real]], asked.select(torch.tensor(rows)), real))
    return Later(partial(_on_host, parts, prompts, network.use))


def _call(network: Network, maps: Maps, prompt: Int64, asked: Asked, real: int) -> Part:
    use = network.use
    raw = network.device.start(partial(_decoded, network), maps, asked)
    logits, origin, iou = raw.outputs
    mask = enlarged(logits)[:real] > use.mask_logit
    return Part(
        mask=mask.to(torch.uint8),
        origin=origin[:real] * MASK_STRIDE,
        large=mask.sum((1, 2)) >= use.least_area_px,
        iou=iou[:real].sigmoid(),
        class_probs=_classes(network.net, maps, logits, origin)[:real],
        total=raw.total[None],
        prompt=prompt,
    )


def _decoded(network: Network, maps: Maps, asked: Asked) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits and first cell of each prompt's window, and the logit of the IoU of its mask."""
    decoder, side = network.net.decoder, network.use.window_px // MASK_STRIDE
    embedding = decoder.embedding(maps.context, asked)
    logits, origin = decoder.window(embedding, maps.masks, asked, side)
    return logits, origin, decoder.iou(embedding, logits)


def enlarged(cells: torch.Tensor, stride: int = MASK_STRIDE) -> torch.Tensor:
    """N x H x W pixels from N x h x w cells of this stride."""
    wide = F.interpolate(cells[:, None], scale_factor=stride, mode="bilinear", align_corners=False)
    return wide[:, 0]


def _on_host(parts: Sequence[Part], prompts: Prompts, use: UseSettings) -> list[MaskCrops]:
    """All masks of a batch, brought over in one copy, without the small and the doubtful ones."""
    if not parts:
        return []

    def joined(name: str) -> Any:
        return torch.cat([getattr(part, name) for part in parts]).cpu().numpy()

    refuse_non_finite(joined("total"))
    prompt, iou = np.concatenate([part.prompt for part in parts]), joined("iou")
    score = calibrated(prompts.score[prompt], iou, use.calibration)
    kept = np.flatnonzero(joined("large") & (score >= use.least_score))
    crops = MaskCrops(
        mask=joined("mask")[kept],
        origin_tile=joined("origin")[kept],
        prompt=prompt[kept],
        score=score[kept],
        predicted_iou=iou[kept],
        class_probs=joined("class_probs")[kept],
    )
    return [crops]


def nearest_others(xy: Float32 | Float64, prompt: Int64, all_of_tile: Int64) -> Float32:
    """len(prompt) x 2: for each prompt the nearest other point of the tile, NaN where there is none."""
    if len(all_of_tile) < 2 or not len(prompt):
        return np.full((len(prompt), 2), np.nan, np.float32)
    _, near = cKDTree(xy[all_of_tile]).query(xy[prompt], k=2)
    near = all_of_tile[near]
    return np.asarray(xy[np.where(near[:, 0] == prompt, near[:, 1], near[:, 0])], np.float32)


def calibrated(score: Float32, iou: Float32, weights: tuple[float, float, float]) -> Float32:
    """The probability that there is a nucleus and that its outline is right, as measured on validation images."""
    both = weights[0] * logit(score) + weights[1] * logit(iou) + weights[2]
    return np.asarray(1 / (1 + np.exp(-both)), np.float32)


def logit(p: Float32) -> Float32:
    p = np.clip(p.astype(np.float64), 1e-4, 1 - 1e-4)
    return np.asarray(np.log(p / (1 - p)), np.float32)


def _classes(net: AnyNet, maps: Maps, logits: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """N x C: the mean over the mask of what each cell at stride 4 says, or what is said of the cells' mean."""
    if isinstance(net.class_head, PooledClasses):
        return net.class_head.told(mean_over_masks(maps.classes[0], logits, origin))
    height, width = maps.classes.shape[2:]
    steps = torch.arange(logits.shape[1], device=origin.device)
    x, y = ((origin[:, i, None] + steps) // 2 for i in (0, 1))
    table = maps.classes[0].float().softmax(0).permute(1, 2, 0)
    near = table[y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
    weight = logits.sigmoid()[..., None]
    mean: torch.Tensor = (near * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
    return mean / mean.sum(1, keepdim=True).clamp(min=1e-6)


def mean_over_masks(cells: torch.Tensor, logits: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """N x C from C x h x w at stride 4: the windows at stride 2 are brought to its cells first, for a few channels
    are cheap and many are not."""
    height, width = cells.shape[1:]
    weight, odd = logits.sigmoid(), (origin % 2 == 1)[:, :, None, None]
    weight = torch.where(odd[:, 0], F.pad(weight, (1, 1)), F.pad(weight, (0, 2)))
    weight = torch.where(odd[:, 1], F.pad(weight, (0, 0, 1, 1)), F.pad(weight, (0, 0, 0, 2)))
    weight = F.avg_pool2d(weight[:, None], 2).flatten(2)
    steps = torch.arange(logits.shape[1] // 2 + 1, device=origin.device)
    x, y = ((origin[:, i, None] // 2 + steps) for i in (0, 1))
    place = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    near = cells.float().flatten(1).T[place.flatten(1)]
    mean: torch.Tensor = torch.bmm(weight, near)[:, 0] / weight.sum(2).clamp(min=1e-6)
    return mean
