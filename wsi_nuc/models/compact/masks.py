"""The mask decoder: each prompt gets a small network of its own, run over its neighbourhood.

A prompt's embedding is turned into the weights of three layers. They see, at every pixel of the neighbourhood, the
shared mask features and where the pixel lies relative to the prompt and to its negative, the nearest other
nucleus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.settings import MASK_STRIDE, POINT_STRIDE, NetSettings

PLACES = 4  # x, y, distance, and how much nearer the prompt is than its negative
UNIT_PX = 32.0
STATISTICS = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """N prompts: `row` of the batch, `xy` N x 2 pixels (first pixel's centre at 0.5), `negative` N x 2 (NaN where
    there is none)."""

    row: torch.Tensor
    xy: torch.Tensor
    negative: torch.Tensor

    def select(self, rows: torch.Tensor) -> Asked:
        return Asked(self.row[rows], self.xy[rows], self.negative[rows])


class MaskDecoder(nn.Module):
    def __init__(self, context: int, settings: NetSettings) -> None:
        super().__init__()
        width, seen = settings.hidden, settings.mask_channels + PLACES
        self.shapes = ((seen, width), (width, width), (width, 1))
        count = sum(inner * outer + outer for inner, outer in self.shapes)
        self.embed = nn.Sequential(nn.Linear(context, settings.prompt_channels), nn.ReLU())
        self.weights = nn.Linear(settings.prompt_channels, count)
        quality = settings.prompt_channels + STATISTICS
        self.quality = nn.Sequential(nn.Linear(quality, 32), nn.ReLU(), nn.Linear(32, 1))
        # On the meta device, where networks are only asked for shapes, torch would load its compiler for this.
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
        found: torch.Tensor = self.embed(torch.cat(sampled, 1))
        return found

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
        """N x side x side logits at stride 2, and N x 2 the first cell (x, y) of each window. `features`: B x F x
        h x w; cells outside the image are far below 0."""
        origin = window_origin(asked.xy, side)
        steps = torch.arange(side, device=origin.device)
        x, y = origin[:, 0, None] + steps, origin[:, 1, None] + steps
        height, width = features.shape[2:]
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        rows, columns = y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]
        near = features.permute(0, 2, 3, 1)[asked.row[:, None, None], rows, columns]
        place = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
        pixel_xy = (place.flatten(1, 2).float() + 0.5) * MASK_STRIDE
        logits = self.at(embedding, near.flatten(1, 2), pixel_xy, asked).view(-1, side, side)
        return logits.float().masked_fill(~inside, -20.0), origin

    def iou(self, embedding: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """N logits of the IoU that each mask (N x side x side) will have."""
        probs = logits.detach().float().sigmoid().flatten(1)
        mass, sure = probs.sum(1), (probs * (probs > 0.5)).sum(1)
        area = (probs > 0.5).sum(1).float()
        statistics = torch.stack([sure / area.clamp(min=1), area / mass.clamp(min=1), area.sqrt() / UNIT_PX], 1)
        found: torch.Tensor = self.quality(torch.cat([embedding, statistics.to(embedding.dtype)], 1))
        return found[:, 0].float()


def window_origin(xy: torch.Tensor, side: int) -> torch.Tensor:
    """N x 2 int64: the first cell (x, y) of the window of `side` cells around each point; may lie outside."""
    return (xy / MASK_STRIDE).floor().long() - side // 2


def sample(features: torch.Tensor, row: torch.Tensor, xy: torch.Tensor) -> torch.Tensor:
    """N x C bilinear values of B x C x h x w at `xy` (N x 2 cells, the first one's centre at 0.5)."""
    height, width = features.shape[2:]
    low = (xy - 0.5).floor()
    part = xy - 0.5 - low
    table, found = features.permute(0, 2, 3, 1), torch.zeros((), device=features.device)
    for dy in (0, 1):
        for dx in (0, 1):
            x, y = (low[:, 0].long() + dx).clamp(0, width - 1), (low[:, 1].long() + dy).clamp(0, height - 1)
            weight = (part[:, 0] if dx else 1 - part[:, 0]) * (part[:, 1] if dy else 1 - part[:, 1])
            found = found + table[row, y, x].float() * weight[:, None]
    return found


def _places(pixel_xy: torch.Tensor, asked: Asked) -> torch.Tensor:
    offset = (pixel_xy - asked.xy[:, None]) / UNIT_PX
    distance = offset.norm(dim=2)
    other = ((pixel_xy - asked.negative[:, None]) / UNIT_PX).norm(dim=2)
    nearer = (other - distance).clamp(-1, 1).nan_to_num(1.0)
    return torch.cat([offset, distance[..., None], nearer[..., None]], 2)
