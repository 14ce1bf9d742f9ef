"""A frozen convolutional encoder with an adapter after each of its stages.

The paper puts adapters between the blocks of SAM's vision transformer, where all maps have one size and one width.
Here each stage has its own, so the maps of high frequencies are averaged to the size of the stage, and each
adapter has its own projection up to the stage's width in place of one that all share. Both are named differences.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.encoder import Encoder, LiteEncoder
from wsi_nuc.models.compact.settings import NetSettings
from wsi_nuc.models.device import full_precision
from wsi_nuc.models.instasam.settings import COMPACT, AdapterSettings


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
        self.frozen = Encoder(net) if kind == COMPACT else LiteEncoder(kind)
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
