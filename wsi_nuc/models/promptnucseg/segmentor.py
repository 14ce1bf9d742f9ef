"""One mask per prompt. Each prompt is decoded once, and its mask is thresholded on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

import numpy as np
import torch

from wsi_nuc.models.base import Fetch, Later
from wsi_nuc.models.promptnucseg.crops import Part, collect, limited, slots_of
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.windows import SLOTS, Job, Layout, Window, WindowEncoder, plan_jobs
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import Decoded, decode, embed_points
from wsi_nuc.models.sam.model import Sam
from wsi_nuc.models.torch_ops import in_calls
from wsi_nuc.types import MaskCrops, Prompts

GRID = WINDOW_PX // decoder.TOKEN_PX
WHOLE_WINDOWS_PER_CALL = 8


class NetSegmentor:
    def __init__(self, sam: Sam, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._sam, self._encoder, self._runner, self._use = sam, encoder, runner, use

    def segment(self, prompts: Prompts, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        layout = Layout.of(*self._encoder.size, self._use)
        jobs = plan_jobs(prompts, wanted, layout, self._use.negatives)
        parts: list[Part] = []
        with torch.inference_mode():
            embeddings = self._encoder.embed(dict.fromkeys(job.window for job in jobs))
            for slots in SLOTS:
                fitting = [job for job in jobs if job.slots == slots]
                size = max(1, self._runner.prompts // slots)
                calls = in_calls(fitting, size, lambda part, real: self._decode(part, real, embeddings))
                parts += chain.from_iterable(calls)
        return Later(partial(collect, parts, prompts))

    def _decode(self, jobs: list[Job], real: int, embeddings: Mapping[Window, torch.Tensor]) -> list[Part]:
        embedding = torch.stack([embeddings[job.window] for job in jobs])
        device = self._runner.device.torch_device
        xy = torch.from_numpy(np.stack([job.xy_window for job in jobs])).to(device)
        label = torch.from_numpy(np.stack([job.label for job in jobs])).to(device)
        points = xy[:, :, 0].flatten(0, 1)
        first = decoder.first_tokens(points, GRID, self._use.neighbourhood_tokens)
        decoded, logits = self._runner.infer(self._outputs, embedding, (xy, label), first)
        near, touching = self._near(decoded, logits, first, points)
        prompt, start = (torch.from_numpy(part).to(device) for part in slots_of(jobs, real))
        near = Part(near.crop, near.origin + start, prompt, near.predicted_iou, near.class_probs)
        whole = torch.nonzero(touching & (prompt >= 0))[:, 0]
        parts = [near.select(torch.nonzero(~touching & (prompt >= 0))[:, 0])]
        return parts + self._whole(decoded, near, whole, points, start)

    def _outputs(
        self, embedding: torch.Tensor, points: tuple[torch.Tensor, torch.Tensor], first: torch.Tensor
    ) -> tuple[Decoded, torch.Tensor]:
        """All that the decoder gives for points and their labels, and the mask logits of their neighbourhoods."""
        decoded = decode(self._sam, embedding, embed_points(self._sam.prompt_encoder, *points))
        image, filters = decoded.image.flatten(0, 1), decoded.filters.flatten(0, 1)
        side = self._use.neighbourhood_tokens
        return decoded, decoder.near_logits(self._sam.mask_decoder, image, filters, first, side)

    def _near(
        self, decoded: Decoded, logits: torch.Tensor, first: torch.Tensor, xy: torch.Tensor
    ) -> tuple[Part, torch.Tensor]:
        """Masks of the neighbourhoods, and whether each needs the whole window after all."""
        limit = self._use.largest_nucleus_px
        crop, origin = limited(decoder.enlarge(logits) > self._use.mask_logit, first * decoder.TOKEN_PX, xy, limit)
        probs = None if decoded.class_logits is None else decoded.class_logits.flatten(0, 1).float().softmax(-1)
        iou = decoded.predicted_iou.flatten().float()
        blank = torch.full_like(first[:, 0], -1)
        return Part(crop, origin, blank, iou, probs), decoder.touches_edge(
            logits, first, GRID, self._use.mask_logit
        )

    def _whole(
        self, decoded: Decoded, near: Part, rows: torch.Tensor, xy: torch.Tensor, start: torch.Tensor
    ) -> list[Part]:
        def call(slots: list[int], real: int) -> Part:
            index = torch.tensor(slots, device=rows.device)
            image, filters = (part.flatten(0, 1)[index] for part in (decoded.image, decoded.filters))
            logits = self._runner.infer(decoder.full_logits, self._sam.mask_decoder, image, filters)
            origin = torch.zeros_like(start[index])
            crop, origin = limited(
                decoder.enlarge(logits) > self._use.mask_logit, origin, xy[index], self._use.largest_nucleus_px
            )
            part = near.select(index)
            part = Part(crop, origin + start[index], part.prompt, part.predicted_iou, part.class_probs)
            return part.select(torch.arange(real, device=rows.device))

        return list(in_calls(rows.tolist(), WHOLE_WINDOWS_PER_CALL, call))
