"""The encoders of the compact network: its own, and EfficientNet-Lite, which may start from ImageNet's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.settings import RESIDUAL, NetSettings
from wsi_nuc.models.torch_ops import PIXEL_MEAN, PIXEL_STD, load

Step = Callable[[torch.Tensor], torch.Tensor]


def encoder_of(settings: NetSettings) -> nn.Module:
    """From B x 3 x H x W normalised pixels to maps of strides 2, 4, 8, 16 and 32."""
    return Encoder(settings) if settings.encoder == RESIDUAL else LiteEncoder(settings.encoder)


def conv(inner: int, outer: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution and norm; the activation is the caller's."""
    return nn.Sequential(
        nn.Conv2d(inner, outer, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outer)
    )


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = conv(inner, outer, 3, stride), conv(outer, outer)
        self.shortcut = nn.Identity() if inner == outer and stride == 1 else conv(inner, outer, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Encoder(nn.Module):
    """Residual blocks, trained from random weights."""

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        self.low_pass = settings.low_pass
        self.stem = conv(3, settings.stem, 3, 2)
        inner, stages = settings.stem, []
        for width, blocks in zip(settings.widths, settings.blocks, strict=True):
            sizes = [(inner, 2)] + [(width, 1)] * (blocks - 1)
            stages.append(nn.Sequential(*(Block(before, width, stride) for before, stride in sizes)))
            inner = width
        self.stages = nn.ModuleList(stages)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Maps of strides 2 (the stem), 4, 8, 16, 32."""
        return one_by_one(self.steps(), self.prepared(pixels))

    def prepared(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def steps(self) -> list[Step]:
        """From pixels to the map of stride 2, and from each map to the next."""
        plain: list[Step] = [lambda pixels: F.relu(self.stem(pixels)), *self.stages]
        smooth: list[Step] = [lambda x, step=step: step(low_passed(x)) for step in plain[: self.low_pass]]  # type: ignore[misc]
        return [*smooth, *plain[self.low_pass :]]


def one_by_one(steps: Sequence[Step], x: torch.Tensor) -> list[torch.Tensor]:
    """What each step makes of what the one before it gave."""
    maps: list[torch.Tensor] = []
    for step in steps:
        maps.append(step(maps[-1] if maps else x))
    return maps


def low_passed(x: torch.Tensor) -> torch.Tensor:
    """The map (B x C x H x W) without what a map of half its size cannot hold: weights of 1, 2, 1 in x and in y.
    Then it matters less at which pixel the coarser grid begins."""
    shares = torch.tensor([1.0, 2.0, 1.0], device=x.device, dtype=x.dtype) / 4
    channels, wide = x.shape[1], F.pad(x, (1, 1, 1, 1), mode="replicate")
    wide = F.conv2d(wide, shares.view(1, 1, 1, 3).expand(channels, 1, 1, 3), groups=channels)
    return F.conv2d(wide, shares.view(1, 1, 3, 1).expand(channels, 1, 3, 1), groups=channels)


class LiteEncoder(nn.Module):
    """timm's EfficientNet-Lite. It was trained on pixels of -1 to 1."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        name = "tf_" + kind.replace("-", "_")
        self.body = load("timm").create_model(name, features_only=True, pretrained=False)
        mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
        self.register_buffer("scale", (std / 127.5).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean - 127.5) / 127.5).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Maps of strides 2, 4, 8, 16, 32."""
        return one_by_one(self.steps(), self.prepared(pixels))

    def prepared(self, pixels: torch.Tensor) -> torch.Tensor:
        buffers: Any = self
        prepared: torch.Tensor = pixels * buffers.scale + buffers.shift
        return prepared

    def steps(self) -> list[Step]:
        """From pixels to the map of stride 2, and from each map to the next."""
        body: Any = self.body
        first = nn.Sequential(body.conv_stem, body.bn1, body.blocks[0])
        return [first, body.blocks[1], body.blocks[2], body.blocks[3:5], body.blocks[5:7]]
