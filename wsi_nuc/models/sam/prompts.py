"""Point prompts as tokens: segment-anything's prompt encoder for many prompts of many images at once."""

from __future__ import annotations

from typing import Any

import torch

from wsi_nuc.models.precision import full_precision

POSITIVE, NEGATIVE, NO_POINT = 1, 0, -1


def embed_points(encoder: Any, xy: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """... x N x 2 points and ... x N labels (POSITIVE, NEGATIVE or NO_POINT) -> ... x (N + 1) x 256 tokens.

    `xy` counts from the corner of the first pixel, in pixels of the encoder's input (segment-anything counts from
    that pixel's centre). The last token is its end mark, a NO_POINT.
    """
    xy = torch.cat([xy, xy.new_zeros(*xy.shape[:-2], 1, 2)], -2)
    label = torch.cat([label, label.new_full((*label.shape[:-1], 1), NO_POINT)], -1)[..., None]
    height, width = encoder.input_image_size
    # In bf16 places would be a third of a pixel off.
    with full_precision(xy):
        place = encoder.pe_layer._pe_encoding(xy / xy.new_tensor([width, height]))
    place = torch.where(label == NO_POINT, torch.zeros_like(place), place)
    kinds = [encoder.not_a_point_embed.weight[0], *(kind.weight[0] for kind in encoder.point_embeddings[:2])]
    return place + torch.stack(kinds)[label[..., 0].long() + 1]
