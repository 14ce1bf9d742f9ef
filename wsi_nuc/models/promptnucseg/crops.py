"""From the raw output of the networks to points and masks.

The prompter's output becomes one point per nucleus: softmax, clip, mask filter, suppression of doubles. What the
calls of the mask decoder give is cut to the size that a nucleus may have, and put in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wsi_nuc.models.nms import suppress_doubles
from wsi_nuc.models.promptnucseg.net import Proposed, resize_mask
from wsi_nuc.models.promptnucseg.settings import UseSettings
from wsi_nuc.models.promptnucseg.windows import Job
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts

# The networks count from the centre of the first pixel, the pipeline from its corner.
INDEX_TO_CORNER = 0.5


@dataclass(frozen=True, slots=True)
class DecodingRule:
    """How points are made from the prompter's output."""

    nms_radius_px: float
    """Of two points closer than this the better one stays; 0 keeps both."""
    mask_filter: bool
    """Drop points on the background of the region mask."""
    threshold: float | None = None
    """Least probability of being a nucleus; None: any class is more probable than background."""

    @classmethod
    def of(cls, use: UseSettings) -> DecodingRule:
        """The parity mode decodes as published, without a threshold."""
        return cls(use.nms_radius_px, use.mask_filter, None if use.mode == "parity" else use.threshold)


def decode_points(proposed: Proposed, size: tuple[int, int], rule: DecodingRule) -> Prompts:
    """Points of all images of a batch. `size`: height and width of the images before they were padded."""
    probs = proposed.logits.softmax(-1)
    if rule.threshold is None:
        chosen = probs.argmax(-1) < probs.shape[-1] - 1
    else:
        chosen = 1 - probs[..., -1] > rule.threshold
    row, anchor = torch.nonzero(chosen, as_tuple=True)
    limit = proposed.xy.new_tensor([size[1] - 1, size[0] - 1])
    xy = torch.minimum(proposed.xy[row, anchor].clamp(min=0), limit)
    probs = probs[row, anchor]
    if rule.mask_filter:
        kept = _on_mask(proposed, xy, row)
        xy, probs, row = xy[kept], probs[kept], row[kept]
    return suppress_doubles(_to_prompts(xy, probs, row), rule.nms_radius_px)


def _on_mask(proposed: Proposed, xy: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    if proposed.mask_logits is None:
        raise ValueError("the mask filter needs the region mask; run the prompter with_mask=True")
    column, line = xy.long().unbind(-1)
    return resize_mask(proposed.mask_logits, proposed.size)[row, line, column] > 0


def _to_prompts(xy: torch.Tensor, probs: torch.Tensor, row: torch.Tensor) -> Prompts:
    foreground = probs[:, :-1]
    table = torch.cat([xy + INDEX_TO_CORNER, foreground.amax(1, keepdim=True), foreground], 1).cpu().numpy()
    classes = table[:, 3:] / np.maximum(table[:, 3:].sum(1, keepdims=True), np.finfo(np.float32).tiny)
    return Prompts(
        xy_tile=table[:, :2].astype(np.float32),
        score=table[:, 2].astype(np.float32),
        class_probs=classes.astype(np.float32),
        row=row.cpu().numpy().astype(np.int64),
    )


@dataclass(frozen=True, slots=True)
class Part:
    """What one call gave for n slots, on the device."""

    crop: torch.Tensor
    """n x h x h masks."""
    origin: torch.Tensor
    """n x 2 tile pixels: the first pixel (x, y) of each mask."""
    prompt: torch.Tensor
    """n indices of prompts, -1 where a slot holds none."""
    predicted_iou: torch.Tensor
    """n."""
    class_probs: torch.Tensor | None
    """n x C; None where the prompter classifies."""

    def select(self, rows: torch.Tensor) -> Part:
        probs = None if self.class_probs is None else self.class_probs[rows]
        return Part(self.crop[rows], self.origin[rows], self.prompt[rows], self.predicted_iou[rows], probs)


def slots_of(jobs: list[Job], real: int) -> tuple[Int64, Int64]:
    """Prompt index (-1: blank) and window start (x, y) of every slot of a call."""
    prompt = np.full((len(jobs), jobs[0].slots), -1, np.int64)
    for i, job in enumerate(jobs[:real]):
        prompt[i, : len(job.prompt)] = job.prompt
    start = np.array([[job.window.x0, job.window.y0] for job in jobs], np.int64)
    return prompt.reshape(-1), np.repeat(start, jobs[0].slots, 0)


def limited(
    mask: torch.Tensor, origin: torch.Tensor, xy: torch.Tensor, limit_px: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """n x h x h masks, cut to `limit_px` around their points. The plan relies on no nucleus being larger."""
    side = mask.shape[-1]
    if side <= limit_px:
        return mask, origin
    first = (xy - origin - limit_px / 2).round().long().clamp(0, side - limit_px)
    steps = torch.arange(limit_px, device=mask.device)
    rows, columns = first[:, 1, None] + steps, first[:, 0, None] + steps
    batch = torch.arange(len(mask), device=mask.device)[:, None, None]
    return mask[batch, rows[:, :, None], columns[:, None, :]], origin + first


def collect(parts: list[Part], prompts: Prompts) -> list[MaskCrops]:
    """All masks, grouped by size, in the order of their prompts."""
    parts = [part for part in parts if len(part.prompt)]
    sizes = sorted({part.crop.shape[-1] for part in parts})
    return [_of_one_size([part for part in parts if part.crop.shape[-1] == size], prompts) for size in sizes]


def _of_one_size(parts: list[Part], prompts: Prompts) -> MaskCrops:
    prompt = torch.cat([part.prompt for part in parts])
    order = prompt.argsort()
    prompt_index = prompt[order].cpu().numpy()
    iou = torch.cat([part.predicted_iou for part in parts])[order].cpu().numpy().astype(np.float32)
    return MaskCrops(
        mask=torch.cat([part.crop for part in parts])[order].to(torch.uint8).cpu().numpy(),
        origin_tile=torch.cat([part.origin for part in parts])[order].cpu().numpy().astype(np.int64),
        prompt=prompt_index,
        score=(prompts.score[prompt_index] * np.clip(iou, 0, 1)).astype(np.float32),
        predicted_iou=iou,
        class_probs=_class_probs(parts, order, prompts.class_probs[prompt_index]),
    )


def _class_probs(parts: list[Part], order: torch.Tensor, of_prompts: Float32) -> Float32:
    own = [part.class_probs for part in parts if part.class_probs is not None]
    if not own:
        return of_prompts
    probs: Float32 = torch.cat(own)[order].cpu().numpy().astype(np.float32)
    return probs
