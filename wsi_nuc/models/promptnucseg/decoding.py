"""From the prompter's raw output to one point per nucleus: softmax, clip, mask filter, suppression of doubles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wsi_nuc.models.doubles import suppress_doubles
from wsi_nuc.models.promptnucseg.net import Proposed, resize_mask
from wsi_nuc.types import Prompts

# The networks count from the centre of the first pixel, the pipeline from its corner.
INDEX_TO_CORNER = 0.5


@dataclass(frozen=True, slots=True)
class DecodingRule:
    """`nms_radius_px`: 0 keeps doubles. `mask_filter`: drop points on the region mask's background."""

    nms_radius_px: float
    mask_filter: bool


def decode_points(proposed: Proposed, size: tuple[int, int], rule: DecodingRule) -> Prompts:
    """Points of all images of a batch; `size`: height and width of the pixels before they were padded."""
    probs = proposed.logits.softmax(-1)
    row, anchor = torch.nonzero(probs.argmax(-1) < probs.shape[-1] - 1, as_tuple=True)
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
