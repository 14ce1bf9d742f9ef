"""A frozen convolutional encoder with an adapter after each of its stages.

The paper puts adapters between the blocks of SAM's vision transformer, where all maps have one size and one width.
Here each stage has its own, so the maps of high frequencies are averaged to the size of the stage, and each
adapter has its own projection up to the stage's width in place of one that all share. Both are named differences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.net import Encoder
from wsi_nuc.models.compact.settings import NetSettings
from wsi_nuc.models.device import full_precision
from wsi_nuc.models.instasam.settings import COMPACT, AdapterSettings
from wsi_nuc.models.torch_ops import PIXEL_MEAN, PIXEL_STD, load


def high_frequencies(pixels: torch.Tensor, share: float) -> torch.Tensor:
    """The image (B x C x H x W) without the lowest frequencies: a rectangle around zero whose area is `share` of
    the spectrum. As in SAM-Adapter, absolute values are given."""
    with full_precision(pixels):
        spectrum = torch.fft.fft2(pixels.float())
        low_y, low_x = (
            torch.fft.fftfreq(length, device=pixels.device).abs() <= share**0.5 / 2 for length in pixels.shape[2:]
        )
        spectrum = spectrum.masked_fill(low_y[:, None] & low_x, 0)
        high: torch.Tensor = torch.fft.ifft2(spectrum).real.abs()
        return high


class Adapter(nn.Module):
    """``up(GELU(tune(F_hfc + F_pe)))`` at each pixel (Eq. 1). It starts as zero: nothing is changed."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width, channels, 1)
        self.tune = nn.Conv2d(channels, channels, 1)
        self.up = nn.Conv2d(channels, width, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, stage: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.up(F.gelu(self.tune(high + self.embed(stage))))
        return changed


class AdaptedEncoder(nn.Module):
    """Maps of strides 2, 4, 8, 16, 32. `frozen` never learns: neither its weights nor its norms."""

    def __init__(self, kind: str, net: NetSettings, settings: AdapterSettings) -> None:
        super().__init__()
        self.frozen = CompactStages(net) if kind == COMPACT else LiteStages(kind)
        self.frozen.requires_grad_(False)
        self._share = settings.frequencies
        self.high = nn.Conv2d(3, settings.channels, 2, 2)
        self.adapters = nn.ModuleList(Adapter(width, settings.channels) for width in (net.stem, *net.widths))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, pixels: torch.Tensor, adapted: bool = True) -> list[torch.Tensor]:
        maps, x = [], self.frozen.prepared(pixels)
        high = self.high(high_frequencies(pixels, self._share)) if adapted else None
        for stage, adapter in zip(self.frozen.steps(), self.adapters, strict=True):
            x = stage(x)
            if high is not None:
                x = x + adapter(x, high)
                high = F.avg_pool2d(high, 2)
            maps.append(x)
        return maps


class CompactStages(Encoder):
    """The encoder of a compact model, stage by stage."""

    def prepared(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def steps(self) -> Iterable[Any]:
        return [lambda pixels: F.relu(self.stem(pixels)), *self.stages]


class LiteStages(nn.Module):
    """timm's EfficientNet-Lite, stage by stage. It was trained on pixels of -1 to 1."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        name = "tf_" + kind.replace("-", "_")
        self.body = load("timm").create_model(name, features_only=True, pretrained=False)
        mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
        self.register_buffer("scale", (std / 127.5).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean - 127.5) / 127.5).view(1, 3, 1, 1), persistent=False)

    def prepared(self, pixels: torch.Tensor) -> torch.Tensor:
        buffers: Any = self
        prepared: torch.Tensor = pixels * buffers.scale + buffers.shift
        return prepared

    def steps(self) -> Iterable[Any]:
        body: Any = self.body
        first = nn.Sequential(body.conv_stem, body.bn1, body.blocks[0])
        return [first, body.blocks[1], body.blocks[2], body.blocks[3:5], body.blocks[5:7]]
