"""SAM's image encoder, the same numbers without the padded tokens."""

from __future__ import annotations

from typing import Any

import torch

from wsi_nuc.models.sam.attention import attend

# SAM's pixel mean and deviation are ImageNet's, so prompter and segmentor share one normalised image.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def encode(encoder: Any, pixels: torch.Tensor) -> torch.Tensor:
    """B x 3 x H x W normalised pixels -> B x 256 x H/16 x W/16, by the parameters of an `ImageEncoderViT`."""
    tokens = encoder.patch_embed(pixels)
    tokens = tokens + encoder.pos_embed
    for block in encoder.blocks:
        tokens = tokens + attend(block.attn, block.norm1(tokens), block.window_size)
        tokens = tokens + block.mlp(block.norm2(tokens))
    embedding: torch.Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return embedding


def normalise(rgb: torch.Tensor) -> torch.Tensor:
    """uint8 B x H x W x 3 -> float32 B x 3 x H x W, on the device of the pixels."""
    mean = torch.tensor(PIXEL_MEAN, device=rgb.device)
    std = torch.tensor(PIXEL_STD, device=rgb.device)
    return ((rgb.float() - mean) / std).permute(0, 3, 1, 2).contiguous()
