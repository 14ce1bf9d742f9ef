"""The compact network: a residual encoder, a pyramid back up to stride 4, heads, and a mask decoder.

The heads give points, classes, the region of nuclei and the features of masks. In the mask decoder each prompt
gets a small network of its own, which runs over its neighbourhood: the prompt's embedding becomes the weights of
three layers. At every pixel they see the shared mask features, and where the pixel lies relative to the prompt and
to its negative, the nearest other nucleus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.encoder import conv, encoder_of
from wsi_nuc.models.compact.settings import MASK_STRIDE, POINT_STRIDE, NetSettings
from wsi_nuc.models.device import full_precision

PLACES = 4  # x, y, distance, and how much nearer the prompt is than its negative
UNIT_PX = 32.0
OUTSIDE = -20.0  # logits of a mask where there is no image
STATISTICS = 3
AROUND_CELLS = 8  # 64 px: as far as the usual halo
PRIOR = 0.02  # roughly the share of cells that hold a point: the head starts with it


@dataclass(frozen=True, slots=True)
class Asked:
    """N prompts whose masks are asked for."""

    row: torch.Tensor
    """N rows of the batch."""
    xy: torch.Tensor
    """N x 2 pixels; the first pixel's centre lies at 0.5."""
    negative: torch.Tensor
    """N x 2 pixels, NaN where there is none."""

    def select(self, rows: torch.Tensor) -> Asked:
        return Asked(self.row[rows], self.xy[rows], self.negative[rows])


class MaskDecoder(nn.Module):
    def __init__(self, context: int, settings: NetSettings) -> None:
        super().__init__()
        width, seen = settings.hidden, settings.mask_channels + PLACES
        self.shapes = ((seen, width), (width, width), (width, 1))
        count = sum(inner * outer + outer for inner, outer in self.shapes)
        self.prompt_channels = settings.prompt_channels
        self.embed = nn.Sequential(nn.Linear(context, settings.prompt_channels), nn.ReLU())
        self.weights = nn.Linear(settings.prompt_channels, count)
        quality = settings.prompt_channels + STATISTICS
        self.quality = nn.Sequential(nn.Linear(quality, 32), nn.ReLU(), nn.Linear(32, 1))
        # On the meta device, where only shapes are asked for, torch would load its compiler for this.
        if not self.weights.weight.is_meta:
            self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.normal_(self.weights.weight, std=0.01)
        nn.init.zeros_(self.weights.bias)
        first = 0
        for inner, outer in self.shapes:
            self.weights.bias[first : first + inner * outer].normal_(0, (2.0 / inner) ** 0.5)
            first += inner * outer + outer

    def embedding(self, context: tuple[torch.Tensor, ...], asked: Asked) -> torch.Tensor:
        """N x prompt_channels."""
        strides = (POINT_STRIDE, 2 * POINT_STRIDE)
        sampled = [sample(m, asked.row, asked.xy / s) for m, s in zip(context, strides, strict=True)]
        embedding: torch.Tensor = self.embed(torch.cat(sampled, 1))
        return embedding

    def at(
        self, embedding: torch.Tensor, features: torch.Tensor, pixel_xy: torch.Tensor, asked: Asked
    ) -> torch.Tensor:
        """N x P logits at P pixels of each prompt. `features`: N x P x F; `pixel_xy`: N x P x 2."""
        x = torch.cat([features, _places(pixel_xy, asked).to(features.dtype)], 2)
        weights, first = self.weights(embedding), 0
        for i, (inner, outer) in enumerate(self.shapes):
            matrix = weights[:, first : first + inner * outer].view(-1, inner, outer)
            bias = weights[:, first + inner * outer : first + inner * outer + outer]
            first += inner * outer + outer
            x = torch.baddbmm(bias[:, None], x.to(matrix.dtype), matrix)
            x = F.relu(x) if i < len(self.shapes) - 1 else x
        return x[..., 0]

    def window(
        self, embedding: torch.Tensor, features: torch.Tensor, asked: Asked, side: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """N x side x side logits at stride 2, and the first cell (x, y) of each window, N x 2.

        `features`: B x F x h x w. The logits of cells outside the image are far below 0.
        """
        origin = window_origin(asked.xy, side)
        steps = torch.arange(side, device=origin.device)
        x, y = origin[:, 0, None] + steps, origin[:, 1, None] + steps
        height, width = features.shape[2:]
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        rows, columns = y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]
        near = picked(features, asked.row[:, None, None], columns, rows)
        place = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
        pixel_xy = (place.flatten(1, 2).float() + 0.5) * MASK_STRIDE
        logits = self.at(embedding, near.flatten(1, 2), pixel_xy, asked).view(-1, side, side)
        return logits.float().masked_fill(~inside, OUTSIDE), origin

    def iou(self, embedding: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """N logits of the IoU that is expected of each mask (N x side x side)."""
        probs = logits.detach().float().sigmoid().flatten(1)
        mass, sure = probs.sum(1), (probs * (probs > 0.5)).sum(1)
        area = (probs > 0.5).sum(1).float()
        statistics = torch.stack([sure / area.clamp(min=1), area / mass.clamp(min=1), area.sqrt() / UNIT_PX], 1)
        logit: torch.Tensor = self.quality(torch.cat([embedding, statistics.to(embedding.dtype)], 1))
        return logit[:, 0].float()


def window_origin(xy: torch.Tensor, side: int) -> torch.Tensor:
    """N x 2 int64: the first cell (x, y) of the window of `side` cells around each point. It may lie outside of
    the image."""
    return (xy / MASK_STRIDE).floor().long() - side // 2


def sample(features: torch.Tensor, row: torch.Tensor, xy: torch.Tensor) -> torch.Tensor:
    """N x C bilinear values of B x C x h x w at `xy` (N x 2 cells, the first one's centre at 0.5)."""
    height, width = features.shape[2:]
    low = (xy - 0.5).floor()
    part = xy - 0.5 - low
    values = torch.zeros((), device=features.device)
    for dy in (0, 1):
        for dx in (0, 1):
            x, y = (low[:, 0].long() + dx).clamp(0, width - 1), (low[:, 1].long() + dy).clamp(0, height - 1)
            weight = (part[:, 0] if dx else 1 - part[:, 0]) * (part[:, 1] if dy else 1 - part[:, 1])
            values = values + picked(features, row, x, y).float() * weight[:, None]
    return values


def picked(features: torch.Tensor, row: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The C values of B x C x h x w at each place; the indices' common shape comes first.

    As rows of one flat table, since a GPU would sort the gradients of three indices, all of them, in every step.
    """
    channels, height, width = features.shape[1:]
    place = (row * height + y) * width + x
    flat = features.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, place.flatten())
    return flat.view(*place.shape, channels)


def _places(pixel_xy: torch.Tensor, asked: Asked) -> torch.Tensor:
    offset = (pixel_xy - asked.xy[:, None]) / UNIT_PX
    distance = offset.norm(dim=2)
    to_negative = ((pixel_xy - asked.negative[:, None]) / UNIT_PX).norm(dim=2)
    nearer = (to_negative - distance).clamp(-1, 1).nan_to_num(1.0)
    return torch.cat([offset, distance[..., None], nearer[..., None]], 2)


@dataclass(frozen=True, slots=True)
class Maps:
    """What one look at B x 3 x H x W pixels gives, as it comes from the heads."""

    points: torch.Tensor
    """B x 3 at stride 4: heat and offset."""
    classes: torch.Tensor
    """B x C logits at stride 4; with `PooledClasses`, B x `class_hidden` of its hidden layer."""
    fine: torch.Tensor
    """B x (3 + F) at stride 2: region, towards and masks."""
    context: tuple[torch.Tensor, torch.Tensor]
    """Maps at strides 4 and 8, from which prompts are embedded."""

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
        """B x 2, the way to the nucleus's centre in units of 16 px. It teaches the masks and has no other use."""
        return self.fine[:, 1:3]

    @property
    def masks(self) -> torch.Tensor:
        """B x F features from which masks are made."""
        return self.fine[:, 3:]


def mask_windows(decoder: MaskDecoder, maps: Maps, asked: Asked, side: int) -> torch.Tensor:
    """N x side x side logits at stride 2 of the masks that are asked for."""
    logits, _ = decoder.window(decoder.embedding(maps.context, asked), maps.masks, asked, side)
    return logits


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
        """From maps at strides 4, 8, 16 and 32 to maps at strides 4, 8 and 16."""
        out, x = [], maps[-1]
        for i in range(len(maps) - 2, -1, -1):
            below = F.interpolate(self.below[i](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.relu(self.mix[i](F.relu(below + self.beside[i](maps[i]))))
            out.append(x)
        return out[::-1]


class PooledClasses(nn.Module):
    """Classes by a hidden layer on the mean over a mask of what is seen in it and around it.

    The first layer is linear, so its mean over a mask is that of its inputs, and it is computed once per cell.
    """

    def __init__(self, settings: NetSettings, class_count: int) -> None:
        super().__init__()
        fine, coarse, _ = settings.pyramid
        self.fine = nn.Conv2d(fine, settings.class_hidden, 1)
        self.coarse = nn.Conv2d(2 * coarse, settings.class_hidden, 1, bias=False)
        self.out = nn.Linear(settings.class_hidden, class_count)

    def forward(self, seen: torch.Tensor, coarse: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
        """B x `class_hidden` at stride 4, from maps at strides 4, 8 and 2."""
        wide = self.coarse(torch.cat([coarse, around(coarse, region)], 1))
        hidden: torch.Tensor = self.fine(seen) + F.interpolate(wide, scale_factor=2.0, mode="nearest")
        return hidden

    def told(self, hidden: torch.Tensor) -> torch.Tensor:
        """N x C probabilities from N x `class_hidden`."""
        return torch.softmax(self.out(F.relu(hidden)), 1)


def around(coarse: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """The mean of a map at stride 8 over nuclei within `AROUND_CELLS`; `region`: logits at stride 2."""
    share = F.avg_pool2d(region.sigmoid(), 4)
    reach = (2 * AROUND_CELLS + 1, 1, AROUND_CELLS)
    return F.avg_pool2d(coarse * share, *reach) / F.avg_pool2d(share, *reach).clamp(min=1e-3)


class CompactNet(nn.Module):
    def __init__(self, settings: NetSettings, class_count: int) -> None:
        super().__init__()
        width, coarse, features = settings.pyramid[0], settings.pyramid[1], settings.mask_channels
        self.settings, self.mask_channels, self.context_channels = settings, features, (width, coarse)
        self.encoder, self.pyramid = encoder_of(settings), Pyramid(settings)
        self.point_tower = conv(width, width)
        self.point_head = nn.Conv2d(width, 3, 1)
        pooled = settings.class_hidden > 0
        self.class_head = PooledClasses(settings, class_count) if pooled else nn.Conv2d(width, class_count, 1)
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
        fine = F.pixel_shuffle(self.mask_head(F.relu(self.mask_tower(points))), 2) + self.mask_detail(stem)
        with full_precision(pixels):
            pooled = isinstance(self.class_head, PooledClasses)
            beside = (coarse.float(), fine[:, :1].float()) if pooled else ()
            heads = self.point_head(seen.float()), self.class_head(seen.float(), *beside)
        return Maps(*heads, fine, (seen, coarse))
