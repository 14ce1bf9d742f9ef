"""Prompts decoded on their whole window, in one view or averaged over six. Averaging and parity need this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from wsi_nuc.models.base import Fetch, Later
from wsi_nuc.models.promptnucseg.crops import Part, collect, limited, slots_of
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.views import View, views_for
from wsi_nuc.models.promptnucseg.windows import SLOTS, Job, Layout, WindowEncoder, plan_jobs
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import Decoded as SamDecoded
from wsi_nuc.models.sam.decoder import decode, embed_points
from wsi_nuc.models.sam.model import Sam
from wsi_nuc.models.torch_ops import in_calls
from wsi_nuc.types import MaskCrops, Prompts

SIZE = (WINDOW_PX, WINDOW_PX)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The n filled slots of one call."""

    logits: torch.Tensor
    """n x 64 x 64, of the whole window."""
    prompt: torch.Tensor
    """n indices of prompts."""
    start: torch.Tensor
    """n x 2 tile pixels: x0, y0 of the window."""
    xy: torch.Tensor
    """n x 2 window pixels: the point."""
    predicted_iou: torch.Tensor
    """n."""
    class_probs: torch.Tensor | None
    """n x C; None where the prompter classifies."""


class WholeDecoder:
    """`slip_px`: how far the points of a rotated view are off (see `views`)."""

    def __init__(
        self, sam: Sam, encoder: WindowEncoder, runner: Runner, views: Sequence[View], slip_px: float = 0.0
    ) -> None:
        self._sam, self._encoder, self._runner = sam, encoder, runner
        self._views, self._slip_px = views, slip_px

    def decode(self, jobs: Sequence[Job]) -> Iterator[Decoded]:
        for slots in SLOTS:
            fitting = [job for job in jobs if job.slots == slots]
            size = max(1, self._runner.prompts // slots)
            yield from in_calls(fitting, size, self._call)

    def _call(self, jobs: list[Job], real: int) -> Decoded:
        device = self._runner.device.torch_device
        xy = torch.from_numpy(np.stack([job.xy_window for job in jobs])).to(device)
        label = torch.from_numpy(np.stack([job.label for job in jobs])).to(device)
        seen = [self._in_view(jobs, view, (xy, label)) for view in self._views]
        logits = torch.stack([view_logits for view_logits, _, _ in seen]).mean(0)
        iou = torch.stack([view_iou for _, view_iou, _ in seen]).mean(0)
        probs = [view_probs for _, _, view_probs in seen if view_probs is not None]
        prompt, start = (torch.from_numpy(part).to(device) for part in slots_of(jobs, real))
        filled = torch.nonzero(prompt >= 0)[:, 0]
        return Decoded(
            logits=logits[filled],
            prompt=prompt[filled],
            start=start[filled],
            xy=xy[:, :, 0].flatten(0, 1)[filled],
            predicted_iou=iou[filled],
            class_probs=torch.stack(probs).mean(0)[filled] if probs else None,
        )

    def _in_view(
        self, jobs: list[Job], view: View, points: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Logits, predicted IoU and class probabilities of every slot, back in the frame of the window."""
        known = self._encoder.embed(dict.fromkeys(job.window for job in jobs), view)
        embedding = torch.stack([known[job.window] for job in jobs])
        xy = view.points(points[0], SIZE, self._slip_px)
        decoded, logits = self._runner.infer(self._outputs, embedding, xy, points[1])
        classes = decoded.class_logits
        probs = None if classes is None else classes.flatten(0, 1).float().softmax(-1)
        return view.undo(logits.float()), decoded.predicted_iou.flatten().float(), probs

    def _outputs(
        self, embedding: torch.Tensor, xy: torch.Tensor, label: torch.Tensor
    ) -> tuple[SamDecoded, torch.Tensor]:
        """All that the decoder gives for points in their windows, and the mask logits of the whole windows."""
        decoded = decode(self._sam, embedding, embed_points(self._sam.prompt_encoder, xy, label))
        image, filters = decoded.image.flatten(0, 1), decoded.filters.flatten(0, 1)
        return decoded, decoder.full_logits(self._sam.mask_decoder, image, filters)


class AveragingSegmentor:
    """The default plan of windows, with every prompt decoded in six views. Whole windows are decoded, since
    averaged logits have no neighbourhood of their own."""

    def __init__(self, sam: Sam, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._decoder = WholeDecoder(sam, encoder, runner, views_for(use.tta))
        self._size, self._use = encoder.size, use

    def segment(self, prompts: Prompts, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        layout = Layout.of(*self._size, self._use)
        jobs = plan_jobs(prompts, wanted, layout, self._use.negatives)
        with torch.inference_mode():
            parts = [self._part(decoded) for decoded in self._decoder.decode(jobs)]
        return Later(partial(collect, parts, prompts))

    def _part(self, decoded: Decoded) -> Part:
        mask, origin = decoder.enlarge(decoded.logits) > self._use.mask_logit, torch.zeros_like(decoded.start)
        crop, origin = limited(mask, origin, decoded.xy, self._use.largest_nucleus_px)
        return Part(crop, origin + decoded.start, decoded.prompt, decoded.predicted_iou, decoded.class_probs)
