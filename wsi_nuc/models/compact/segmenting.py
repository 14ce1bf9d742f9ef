"""Masks of the wanted prompts, each with the nearest other prompt of its tile as the negative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from wsi_nuc.models.calls import chunks
from wsi_nuc.models.compact.look import Look
from wsi_nuc.models.compact.masks import Asked
from wsi_nuc.models.compact.net import Maps
from wsi_nuc.models.compact.points import asked_of
from wsi_nuc.models.compact.settings import MASK_STRIDE, UseSettings
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts, TileBatch

PROMPTS_A_CALL = 64


class CompactSegmentor:
    def __init__(self, look: Look, use: UseSettings) -> None:
        self._look, self._use = look, use

    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        index, found = np.asarray(wanted, np.int64), []
        with torch.inference_mode():
            for row, maps in enumerate(self._look.at(batch)):
                mine = index[prompts.row[index] == row]
                negative = nearest_others(prompts.xy_tile, mine, np.flatnonzero(prompts.row == row))
                asked = asked_of(prompts, mine, negative, self._look.place.device)
                for part, real in chunks(range(len(mine)), PROMPTS_A_CALL):
                    found.append(self._call(maps, prompts, mine[part], asked.select(torch.tensor(part)), real))
        return found

    def _call(self, maps: Maps, prompts: Prompts, mine: Int64, asked: Asked, real: int) -> MaskCrops:
        use = self._use
        logits, origin, iou = self._look.place.infer(self._decoded, maps, asked)
        enlarged = F.interpolate(logits[:, None], scale_factor=MASK_STRIDE, mode="bilinear", align_corners=False)
        mask = enlarged[:real, 0] > use.mask_logit
        predicted = iou[:real].sigmoid().cpu().numpy()
        score = calibrated(prompts.score[mine[:real]], predicted, use.calibration)
        large = (mask.sum((1, 2)) >= use.least_area_px).cpu().numpy()
        kept = np.flatnonzero(large & (score >= use.least_score))
        return MaskCrops(
            mask=mask.to(torch.uint8).cpu().numpy()[kept],
            origin_tile=(origin[:real] * MASK_STRIDE).cpu().numpy()[kept],
            prompt=mine[:real][kept],
            score=score[kept],
            predicted_iou=predicted[kept],
            class_probs=_classes(maps, logits, origin)[:real].cpu().numpy()[kept],
        )

    def _decoded(self, maps: Maps, asked: Asked) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits and first cell of each prompt's window, and the logit of its IoU."""
        decoder, side = self._look.net.decoder, self._use.window_px // MASK_STRIDE
        embedding = decoder.embedding(maps.context, asked)
        logits, origin = decoder.window(embedding, maps.masks, asked, side)
        return logits, origin, decoder.iou(embedding, logits)


def nearest_others(xy: Float32, mine: Int64, all_of_tile: Int64) -> Float32:
    """len(mine) x 2: the nearest other point of the tile, NaN where there is none."""
    if len(all_of_tile) < 2 or not len(mine):
        return np.full((len(mine), 2), np.nan, np.float32)
    _, near = cKDTree(xy[all_of_tile]).query(xy[mine], k=2)
    near = all_of_tile[near]
    return np.asarray(xy[np.where(near[:, 0] == mine, near[:, 1], near[:, 0])], np.float32)


def calibrated(score: Float32, iou: Float32, weights: tuple[float, float, float]) -> Float32:
    """The probability that the nucleus is there and its outline right, as seen on validation images."""
    both = weights[0] * logit(score) + weights[1] * logit(iou) + weights[2]
    return np.asarray(1 / (1 + np.exp(-both)), np.float32)


def logit(p: Float32) -> Float32:
    p = np.clip(p.astype(np.float64), 1e-4, 1 - 1e-4)
    return np.asarray(np.log(p / (1 - p)), np.float32)


def _classes(maps: Maps, logits: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """N x C: the mean over the mask of what each cell at stride 4 says."""
    height, width = maps.classes.shape[2:]
    steps = torch.arange(logits.shape[1], device=origin.device)
    x, y = ((origin[:, i, None] + steps) // 2 for i in (0, 1))
    table = maps.classes[0].float().softmax(0).permute(1, 2, 0)
    near = table[y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
    weight = logits.sigmoid()[..., None]
    mean: torch.Tensor = (near * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
    return mean / mean.sum(1, keepdim=True).clamp(min=1e-6)
