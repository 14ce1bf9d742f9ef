"""A compact network of a few thousand parameters, and tiles for it."""

from __future__ import annotations

import numpy as np
import torch

from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.compact.build import assemble
from wsi_nuc.models.compact.net import CompactNet
from wsi_nuc.models.compact.settings import NetSettings, Settings, UseSettings, spec_of
from wsi_nuc.types import Box, Tile, TileBatch

NET = NetSettings(
    stem=16,
    widths=(16, 16, 16, 16),
    blocks=(1, 1, 1, 1),
    pyramid=(16, 16, 16),
    mask_channels=4,
    hidden=4,
    prompt_channels=16,
)
CLASSES = ("epithelial", "inflammatory", "other")


def tiny_settings(**use: object) -> Settings:
    given: dict[str, object] = {"tile_px": 256, "threshold": 0.01, "precision": "fp32", "least_area_px": 1}
    return Settings(CLASSES, 0.25, NET, UseSettings(**{**given, **use}))  # type: ignore[arg-type]


def tiny_net(seed: int = 0) -> CompactNet:
    torch.manual_seed(seed)
    net = CompactNet(NET, len(CLASSES)).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(1, 2)
                module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return net


def tiny_model(net: CompactNet | None = None, **use: object) -> NucleiModel:
    settings = tiny_settings(**use)
    return assemble(net or tiny_net(), settings, "cpu", spec_of(settings, "a" * 64))


def batch_of(*images: np.ndarray) -> TileBatch:
    height, width = images[0].shape[:2]
    box = Box(0, 0, width, height)
    return TileBatch(np.stack(images), tuple(Tile(i, box, box) for i in range(len(images))))


def noise(seed: int, height: int = 256, width: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
