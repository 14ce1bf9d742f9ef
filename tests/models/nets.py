"""Small networks and official-format checkpoints in which every weight matters."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from wsi_nuc.models.promptnucseg.settings import PrompterSettings, SegmentorSettings, Settings, UseSettings
from wsi_nuc.models.sam.model import SIZES
from wsi_nuc.models.torch_ops import load
from wsi_nuc.types import Box, Tile, TileBatch

TINY_USE: dict[str, Any] = {"windows": 2, "largest_nucleus_px": 96, "precision": "fp32", "mask_filter": False}


def stir(module: torch.nn.Module, seed: int = 0, scale: float = 0.3) -> torch.nn.Module:
    """Change biases, norms and position tables: they start at 0 or 1, where many mistakes do not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1 or "rel_pos" in name or "pos_embed" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return module.eval()


def official_sam(size: str) -> Any:
    """What `segment_anything.sam_model_registry` builds, at 1024 px, also for unofficial sizes."""
    builder = load("segment_anything.build_sam")
    of = SIZES[size]
    torch.manual_seed(0)
    sam = builder._build_sam(of.width, of.depth, of.heads, list(of.global_blocks))
    return stir(sam, scale=0.1)


def official_encoder_at_256(sam: Any, pos_embed: torch.Tensor) -> Any:
    """The official encoder resizes relative positions in every forward pass, but needs the position embedding."""
    sam.image_encoder.pos_embed = torch.nn.Parameter(pos_embed)
    return sam.image_encoder


def prompt_encoder_at_256(sam: Any) -> Any:
    parts = load("segment_anything.modeling")
    encoder = parts.PromptEncoder(256, (16, 16), (256, 256), mask_in_chans=16)
    encoder.load_state_dict(sam.prompt_encoder.state_dict())
    return encoder.eval()


def tiny_settings(shared: bool = False, class_token: bool = False, **use: Any) -> Settings:
    return Settings(
        classes=("round", "long"),
        mpp=0.25,
        prompter=PrompterSettings("convnext_atto", channels=32, shared_encoder=shared),
        segmentor=SegmentorSettings("vit_mini", class_token),
        use=UseSettings(**(TINY_USE | use)),
    )


def random_batch(tiles: int, side: int, seed: int = 0) -> TileBatch:
    """Smooth noise, so that neighbouring windows differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (tiles, side // 16 + 1, side // 16 + 1, 3), dtype=np.uint8)
    rgb = np.repeat(np.repeat(coarse, 16, 1), 16, 2)[:, :side, :side]
    box = Box(0, 0, side, side)
    return TileBatch(np.ascontiguousarray(rgb), tuple(Tile(i, box, box) for i in range(tiles)))


reference_norm = partial(torch.nn.LayerNorm, eps=1e-6)
