"""The segmentor behind the pipeline's protocol: each prompt decoded once, masks thresholded on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wsi_nuc.models.promptnucseg.device import Runner, chunks
from wsi_nuc.models.promptnucseg.embedding import WindowEncoder
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.windows import SLOTS, Job, Layout, plan_jobs
from wsi_nuc.models.sam import masks
from wsi_nuc.models.sam.decoder import Decoded, decode
from wsi_nuc.models.sam.prompts import embed_points
from wsi_nuc.models.sam.sizes import Sam
from wsi_nuc.types import Float32, MaskCrops, Prompts, TileBatch

GRID = WINDOW_PX // masks.TOKEN_PX
WHOLE_WINDOWS_A_CALL = 8


@dataclass(frozen=True, slots=True)
class _Part:
    """What one call gave, on the device; `real` says which of its slots hold a prompt."""

    crop: torch.Tensor
    origin: torch.Tensor
    prompt: torch.Tensor
    predicted_iou: torch.Tensor
    class_probs: torch.Tensor | None

    def select(self, rows: torch.Tensor) -> _Part:
        probs = None if self.class_probs is None else self.class_probs[rows]
        return _Part(self.crop[rows], self.origin[rows], self.prompt[rows], self.predicted_iou[rows], probs)


class NetSegmentor:
    def __init__(self, sam: Sam, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._sam, self._encoder, self._runner, self._use = sam, encoder, runner, use

    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        if not len(wanted):
            return []
        layout = Layout.of(batch.rgb.shape[1], batch.rgb.shape[2], self._use)
        jobs = plan_jobs(prompts, wanted, layout, self._use.negatives)
        parts: list[_Part] = []
        with torch.inference_mode():
            embeddings = self._encoder.embed(batch, dict.fromkeys(job.window for job in jobs))
            for slots in SLOTS:
                fitting = [job for job in jobs if job.slots == slots]
                for part, real in chunks(fitting, max(1, self._runner.prompts // slots)):
                    embedding = torch.stack([embeddings[job.window] for job in part])
                    parts += self._decode(part, real, embedding)
        parts = [part for part in parts if len(part.prompt)]
        sizes = sorted({part.crop.shape[-1] for part in parts})
        return [_collect([p for p in parts if p.crop.shape[-1] == size], prompts) for size in sizes]

    def _decode(self, jobs: list[Job], real: int, embedding: torch.Tensor) -> list[_Part]:
        device = self._runner.device
        xy = torch.from_numpy(np.stack([job.xy_window for job in jobs])).to(device)
        label = torch.from_numpy(np.stack([job.label for job in jobs])).to(device)
        with self._runner.autocast():
            decoded = decode(self._sam, embedding, embed_points(self._sam.prompt_encoder, xy, label))
            near, touching = self._near(decoded, xy[:, :, 0].flatten(0, 1))
        prompt, start = (torch.from_numpy(part).to(device) for part in _slots(jobs, real))
        near = _Part(near.crop, near.origin + start, prompt, near.predicted_iou, near.class_probs)
        whole = torch.nonzero(touching & (prompt >= 0))[:, 0]
        parts = [near.select(torch.nonzero(~touching & (prompt >= 0))[:, 0])]
        return parts + self._whole(decoded, near, whole, xy[:, :, 0].flatten(0, 1), start)

    def _near(self, decoded: Decoded, xy: torch.Tensor) -> tuple[_Part, torch.Tensor]:
        """Masks of the neighbourhoods, and whether each needs the whole window after all."""
        side, limit = self._use.neighbourhood_tokens, self._use.largest_nucleus_px
        first = masks.first_tokens(xy, GRID, side)
        image, filters = decoded.image.flatten(0, 1), decoded.filters.flatten(0, 1)
        logits = masks.near_logits(self._sam.mask_decoder, image, filters, first, side)
        crop, origin = _limited(masks.enlarge(logits) > 0, first * masks.TOKEN_PX, xy, limit)
        probs = None if decoded.class_logits is None else decoded.class_logits.flatten(0, 1).float().softmax(-1)
        iou = decoded.predicted_iou.flatten().float()
        blank = torch.full_like(first[:, 0], -1)
        return _Part(crop, origin, blank, iou, probs), masks.touches_edge(logits, first, GRID)

    def _whole(
        self, decoded: Decoded, near: _Part, rows: torch.Tensor, xy: torch.Tensor, start: torch.Tensor
    ) -> list[_Part]:
        parts = []
        for some, real in chunks(rows.tolist(), WHOLE_WINDOWS_A_CALL):
            index = torch.tensor(some, device=rows.device)
            with self._runner.autocast():
                image, filters = (part.flatten(0, 1)[index] for part in (decoded.image, decoded.filters))
                logits = masks.full_logits(self._sam.mask_decoder, image, filters)
            origin = torch.zeros_like(start[index])
            crop, origin = _limited(masks.enlarge(logits) > 0, origin, xy[index], self._use.largest_nucleus_px)
            part = near.select(index)
            part = _Part(crop, origin + start[index], part.prompt, part.predicted_iou, part.class_probs)
            parts.append(part.select(torch.arange(real, device=rows.device)))
        return parts


def _slots(jobs: list[Job], real: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompt index (-1: blank) and window start (x, y) of every slot of a call."""
    prompt = np.full((len(jobs), jobs[0].slots), -1, np.int64)
    for i, job in enumerate(jobs[:real]):
        prompt[i, : len(job.prompt)] = job.prompt
    start = np.array([[job.window.x0, job.window.y0] for job in jobs], np.int64)
    return prompt.reshape(-1), np.repeat(start, jobs[0].slots, 0)


def _limited(
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


def _collect(parts: list[_Part], prompts: Prompts) -> MaskCrops:
    """All masks of one size, in the order of their prompts."""
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


def _class_probs(parts: list[_Part], order: torch.Tensor, of_prompts: Float32) -> Float32:
    own = [part.class_probs for part in parts if part.class_probs is not None]
    if not own:
        return of_prompts
    probs: Float32 = torch.cat(own)[order].cpu().numpy().astype(np.float32)
    return probs
