"""A residual encoder, a pyramid back up to stride 4, and heads for points, classes, region and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.masks import MaskDecoder
from wsi_nuc.models.compact.settings import NetSettings
from wsi_nuc.models.precision import full_precision

PRIOR = 0.02  # how many cells hold a point, roughly: told from the start


@dataclass(frozen=True, slots=True)
class Maps:
    """What one look at B x 3 x H x W pixels gives, as the heads give it: `points` (heat and offset) and `classes`
    (B x C logits) at stride 4, `fine` (region, towards and masks) at stride 2. `context`: maps at strides 4 and 8
    that prompts are embedded from.
    """

    points: torch.Tensor
    classes: torch.Tensor
    fine: torch.Tensor
    context: tuple[torch.Tensor, torch.Tensor]

    @property
    def heat(self) -> torch.Tensor:
        """B x 1 logits of a nucleus's centre in the cell."""
        return self.points[:, :1]

    @property
    def offset(self) -> torch.Tensor:
        """B x 2: x and y in cells, from the cell's centre."""
        return self.points[:, 1:]

    @property
    def region(self) -> torch.Tensor:
        """B x 1 logits of foreground."""
        return self.fine[:, :1]

    @property
    def towards(self) -> torch.Tensor:
        """B x 2 to the nucleus's centre in units of 16 px: a teacher of the masks, unused otherwise."""
        return self.fine[:, 1:3]

    @property
    def masks(self) -> torch.Tensor:
        """B x F features that masks are made from."""
        return self.fine[:, 3:]


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
    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        self.stem = conv(3, settings.stem, 3, 2)
        inner, stages = settings.stem, []
        for width, blocks in zip(settings.widths, settings.blocks, strict=True):
            sizes = [(inner, 2)] + [(width, 1)] * (blocks - 1)
            stages.append(nn.Sequential(*(Block(before, width, stride) for before, stride in sizes)))
            inner = width
        self.stages = nn.ModuleList(stages)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Maps of strides 2 (the stem), 4, 8, 16, 32."""
        maps = [F.relu(self.stem(pixels))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class Pyramid(nn.Module):
    """From the coarsest map up to stride 4, each step a sum with what the encoder saw there."""

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        inner = (*settings.pyramid, settings.widths[-1])
        steps = list(zip(settings.widths[:-1], settings.pyramid, strict=True))
        self.beside = nn.ModuleList(conv(width, out, 1) for width, out in steps)
        self.below = nn.ModuleList(conv(inner[i + 1], out, 1) for i, (_, out) in enumerate(steps))
        self.mix = nn.ModuleList(conv(out, out) for _, out in steps)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """`maps` and what comes back: of strides 4, 8, 16, and 32 that is only taken."""
        out, x = [], maps[-1]
        for i in range(len(maps) - 2, -1, -1):
            below = F.interpolate(self.below[i](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.relu(self.mix[i](F.relu(below + self.beside[i](maps[i]))))
            out.append(x)
        return out[::-1]


class CompactNet(nn.Module):
    def __init__(self, settings: NetSettings, class_count: int) -> None:
        super().__init__()
        width, coarse, features = settings.pyramid[0], settings.pyramid[1], settings.mask_channels
        self.encoder, self.pyramid = Encoder(settings), Pyramid(settings)
        self.point_tower = conv(width, width)
        self.point_head = nn.Conv2d(width, 3, 1)
        self.class_head = nn.Conv2d(width, class_count, 1)
        # Stride 2 is reached by unfolding channels: convolutions there would be half of all work.
        self.mask_tower = conv(width, width)
        self.mask_head = nn.Conv2d(width, 4 * (features + 3), 1)
        self.mask_detail = nn.Conv2d(settings.stem, features + 3, 3, padding=1)
        self.decoder = MaskDecoder(width + coarse, settings)
        with torch.no_grad():
            nn.init.constant_(self.point_head.bias[0], -math.log(1 / PRIOR - 1))  # type: ignore[index]

    def forward(self, pixels: torch.Tensor) -> Maps:
        """`pixels`: B x 3 x H x W of `normalise`, H and W multiples of 32."""
        stem, *maps = self.encoder(pixels)
        points, coarse, _ = self.pyramid(maps)
        seen = F.relu(self.point_tower(points))
        with full_precision(pixels):
            heads = self.point_head(seen.float()), self.class_head(seen.float())
        fine = F.pixel_shuffle(self.mask_head(F.relu(self.mask_tower(points))), 2) + self.mask_detail(stem)
        return Maps(*heads, fine, (seen, coarse))
