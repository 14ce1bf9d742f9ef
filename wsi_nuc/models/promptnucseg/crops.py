"""What the calls of the mask decoder give, cut to the size a nucleus may have and put in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wsi_nuc.models.promptnucseg.windows import Job
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts


@dataclass(frozen=True, slots=True)
class Part:
    """What one call gave, on the device. `crop`: n x h x h masks; `origin`: n x 2 tile pixels; `prompt`: -1 where
    a slot holds none."""

    crop: torch.Tensor
    origin: torch.Tensor
    prompt: torch.Tensor
    predicted_iou: torch.Tensor
    class_probs: torch.Tensor | None

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
    """n x h x h masks cut to `limit_px` around their points: no nucleus is larger, as the plan relies on."""
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
