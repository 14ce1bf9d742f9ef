"""From a decoded prompt to mask logits: of the whole input, or of the prompt's neighbourhood only.

Both transposed convolutions have stride 2 and kernel 2 and the norm between them is per pixel, so every image
token is upscaled on its own: the 4 x 4 logits of a token near the prompt are the same whether or not the others
are computed. What is left out is only what lies outside the neighbourhood.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

LOGITS_A_TOKEN = 4
TOKEN_PX = 16


def full_logits(decoder: Any, image: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """n x tokens x 256 and n x 32 -> n x 4h x 4w logits of the whole (square) input, a quarter of its pixels."""
    side = round(image.shape[1] ** 0.5)
    return _logits(decoder, image.transpose(1, 2).reshape(len(image), -1, side, side), filters)


def near_logits(
    decoder: Any, image: torch.Tensor, filters: torch.Tensor, first: torch.Tensor, side: int
) -> torch.Tensor:
    """The same for `side` x `side` tokens from token `first` (n x 2 int64, column and row) of each prompt."""
    grid = round(image.shape[1] ** 0.5)
    steps = torch.arange(side, device=image.device)
    index = (first[:, 1, None] + steps)[:, :, None] * grid + (first[:, 0, None] + steps)[:, None, :]
    rows = torch.arange(len(image), device=image.device)[:, None]
    near = image[rows, index.flatten(1)].transpose(1, 2).reshape(len(image), -1, side, side)
    return _logits(decoder, near, filters)


def first_tokens(xy: torch.Tensor, grid: int, side: int) -> torch.Tensor:
    """n x 2 int64: where a neighbourhood of `side` tokens around each point (n x 2 pixels) begins, kept inside."""
    return ((xy / TOKEN_PX).floor().long() - side // 2).clamp(0, grid - side)


def enlarge(logits: torch.Tensor) -> torch.Tensor:
    """n x h x w logits -> n x 4h x 4w at the resolution of the input, bilinear as the published method does."""
    scale = TOKEN_PX // LOGITS_A_TOKEN
    return F.interpolate(logits[:, None].float(), scale_factor=scale, mode="bilinear", align_corners=False)[:, 0]


def touches_edge(logits: torch.Tensor, first: torch.Tensor, grid: int) -> torch.Tensor:
    """n bool: the mask reaches an edge of the neighbourhood that is not an edge of the input."""
    side = logits.shape[-1] // LOGITS_A_TOKEN
    inside = logits > 0
    low, high = first > 0, first + side < grid
    return (
        (inside[:, :, 0].any(1) & low[:, 0])
        | (inside[:, :, -1].any(1) & high[:, 0])
        | (inside[:, 0].any(1) & low[:, 1])
        | (inside[:, -1].any(1) & high[:, 1])
    )


def _logits(decoder: Any, image: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    upscaled = decoder.output_upscaling(image)
    return torch.einsum("nchw,nc->nhw", upscaled, filters.to(upscaled.dtype))
