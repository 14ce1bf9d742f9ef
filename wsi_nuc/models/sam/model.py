"""SAM built from segment-anything's parts: the sizes of its image encoder, and what the encoder computes.

`encode` gives the same numbers as segment-anything without computing padded tokens. Official checkpoints hold
position tables for 1024 px; they are resized once, when they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.errors import ModelError
from wsi_nuc.models.device import full_precision
from wsi_nuc.models.sam.attention import attend
from wsi_nuc.models.torch_ops import load

State = dict[str, torch.Tensor]
Changes = Callable[[torch.Tensor], Iterable[torch.Tensor]]
EMBEDDING = 256
PATCH_PX = 16
WINDOW_TOKENS = 14


def encode(encoder: Any, pixels: torch.Tensor, changes: Changes | None = None) -> torch.Tensor:
    """B x 3 x H x W normalised pixels -> B x 256 x H/16 x W/16, by the parameters of an `ImageEncoderViT`.

    `changes`: from the patch embedding (B x H/16 x W/16 x width) to what is added to the tokens before each block.
    """
    patches = encoder.patch_embed(pixels)
    tokens = patches + encoder.pos_embed
    for block, change in zip(encoder.blocks, repeat(None) if changes is None else changes(patches), strict=False):
        tokens = tokens if change is None else tokens + change
        tokens = tokens + attend(block.attn, block.norm1(tokens), block.window_size)
        tokens = tokens + block.mlp(block.norm2(tokens))
    embedding: torch.Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return embedding


def resize_tables(state: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> State:
    """The same state with position tables brought to the wanted `shapes`; everything else stays as it is.

    The position embedding is resized bicubically and relative positions linearly, as the published method does in
    every forward pass.
    """
    return {name: _resized(name, tensor, shapes.get(name)) for name, tensor in state.items()}


def _resized(name: str, tensor: torch.Tensor, shape: tuple[int, ...] | None) -> torch.Tensor:
    if shape is None or tuple(tensor.shape) == shape or tensor.ndim != len(shape):
        return tensor
    if name.endswith("pos_embed") and tensor.ndim == 4 and tensor.shape[3] == shape[3]:
        channels_first = tensor.permute(0, 3, 1, 2).float()
        resized = F.interpolate(channels_first, size=shape[1:3], mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1).contiguous().to(tensor.dtype)
    if name.rpartition(".")[2] in ("rel_pos_h", "rel_pos_w") and tensor.shape[1] == shape[1]:
        resized = F.interpolate(tensor.float().T[None], size=shape[0], mode="linear")
        return resized[0].T.contiguous().to(tensor.dtype)
    return tensor


@dataclass(frozen=True, slots=True)
class SamSize:
    """The size of the vision transformer."""

    width: int
    """Channels of a token."""
    depth: int
    """Number of blocks."""
    heads: int
    """Heads of attention in each block."""
    global_blocks: tuple[int, ...]
    """Indices of the blocks that attend to the whole image."""


SIZES = {
    "vit_h": SamSize(1280, 32, 16, (7, 15, 23, 31)),
    "vit_l": SamSize(1024, 24, 16, (5, 11, 17, 23)),
    "vit_b": SamSize(768, 12, 12, (2, 5, 8, 11)),
    # Not official: for training on a CPU and for tests.
    "vit_tiny": SamSize(192, 12, 3, (2, 5, 8, 11)),
    "vit_mini": SamSize(64, 2, 2, (1,)),
}


def size_of(source: str | Path, state: Mapping[str, torch.Tensor]) -> str:
    """The name of the size whose image encoder has these tensors."""
    patches = state["image_encoder.patch_embed.proj.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    depth = sum(name.startswith("image_encoder.blocks.") and name.endswith(".norm1.weight") for name in state)
    for name, size in SIZES.items():
        if (size.width, size.depth, PATCH_PX) == (width, depth, patch):
            return name
    cause = f"its image encoder is {width} wide and {depth} deep, with patches of {patch} px"
    raise ModelError(source, cause, f"use one of {', '.join(SIZES)}")


class Sam(nn.Module):
    """The three parts under the names that official checkpoints use. `class_count` adds the [cls] token.

    The forward passes are the functions `encode`, `decoder.embed_points` and `decoder.decode`, since they replace
    those of the parts without changing a parameter. `encoder` stands in for SAM's vision transformer, whose `size`
    has then no meaning.
    """

    def __init__(
        self, size: str, image_px: int = 256, class_count: int = 0, encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        if encoder is None and size not in SIZES:
            raise ModelError(f"encoder {size!r}", "there is no such SAM size", f"use one of {', '.join(SIZES)}")
        self.image_px, self.class_count = image_px, class_count
        self.image_encoder = encoder or _image_encoder(SIZES[size], image_px)
        grid = image_px // PATCH_PX
        parts = load("segment_anything.modeling")
        self.prompt_encoder = parts.PromptEncoder(EMBEDDING, (grid, grid), (image_px, image_px), mask_in_chans=16)
        transformer = parts.TwoWayTransformer(depth=2, embedding_dim=EMBEDDING, mlp_dim=2048, num_heads=8)
        self.mask_decoder = parts.MaskDecoder(transformer_dim=EMBEDDING, transformer=transformer)
        if class_count:
            # Paper, "Which module should undertake the nucleus classification task?"
            mlp = load("segment_anything.modeling.mask_decoder").MLP
            self.mask_decoder.cls_token = nn.Embedding(1, EMBEDDING)
            self.mask_decoder.cls_head = mlp(EMBEDDING, EMBEDDING, class_count, 3)

    def image_pe(self) -> torch.Tensor:
        """1 x tokens x channels: the position encoding of the image's tokens."""
        with full_precision(self.prompt_encoder.no_mask_embed.weight):
            pe: torch.Tensor = self.prompt_encoder.get_dense_pe()
        return pe.flatten(2).transpose(1, 2)


def _image_encoder(size: SamSize, image_px: int) -> nn.Module:
    parts = load("segment_anything.modeling")
    encoder: nn.Module = parts.ImageEncoderViT(
        img_size=image_px,
        patch_size=PATCH_PX,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=size.global_blocks,
        window_size=WINDOW_TOKENS,
        out_chans=EMBEDDING,
    )
    return encoder
