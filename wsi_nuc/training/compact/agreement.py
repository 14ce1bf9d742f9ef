"""Two looks at one crop must agree, wherever the grid of strides begins: the second is moved by a few pixels."""

from __future__ import annotations

import torch

from wsi_nuc.models.compact.net import OUTSIDE, Asked, CompactNet, Maps, mask_windows
from wsi_nuc.models.compact.settings import MASK_STRIDE, POINT_STRIDE
from wsi_nuc.training.compact.crops import Batch

SHARE = 0.25  # of the batch is looked at again
FARTHEST_PX = 32  # moves are even and below it
EDGE_PX = 32  # nearer to the edge of a crop both looks see too little
MOST_PROMPTS = 128


def agreement_loss(net: CompactNet, maps: Maps, pixels: torch.Tensor, batch: Batch, side: int) -> torch.Tensor:
    """Mean difference of the probabilities of region, heat and masks, summed. `maps`: of `pixels`, the whole
    batch; `side`: cells of a prompt's window at stride 2."""
    count = max(1, int(len(pixels) * SHARE))
    x, y = (int(step) * MASK_STRIDE for step in torch.randint(0, FARTHEST_PX // MASK_STRIDE, (2,)))
    again = net(torch.roll(pixels[:count], (y, x), (2, 3)))
    loss = _apart(maps.region[:count], again.region, x, y, MASK_STRIDE)
    if x % POINT_STRIDE == y % POINT_STRIDE == 0:
        loss = loss + _apart(maps.heat[:count], again.heat, x, y, POINT_STRIDE)
    return loss + _masks_apart(net, maps, again, _prompts(batch, count, pixels.shape[2] - max(x, y)), (x, y), side)


def _apart(before: torch.Tensor, after: torch.Tensor, x: int, y: int, stride: int) -> torch.Tensor:
    """Mean difference of probabilities where both maps show the same place, away from the edges."""
    height, width = before.shape[2] - y // stride, before.shape[3] - x // stride
    same = (
        before[:, :, :height, :width].float().sigmoid()
        - after[:, :, y // stride :, x // stride :].float().sigmoid()
    )
    edge = EDGE_PX // stride
    return same[:, :, edge:-edge, edge:-edge].abs().mean()


def _prompts(batch: Batch, count: int, size: int) -> Asked:
    """Prompts of the first `count` crops whose surroundings both looks show."""
    inside = ((batch.prompt_xy > EDGE_PX) & (batch.prompt_xy < size - EDGE_PX)).all(1)
    rows = torch.nonzero((batch.prompt_row < count) & inside)[:MOST_PROMPTS, 0]
    return Asked(batch.prompt_row, batch.prompt_xy, batch.negative).select(rows)


def _masks_apart(
    net: CompactNet, maps: Maps, again: Maps, asked: Asked, move: tuple[int, int], side: int
) -> torch.Tensor:
    """Mean difference over the pixels of windows that lie in both looks."""
    if not len(asked.row):
        return maps.masks.float().sum() * 0
    way = asked.xy.new_tensor(move)
    moved = Asked(asked.row, asked.xy + way, asked.negative + way)
    first, second = (
        mask_windows(net.decoder, seen, prompts, side) for seen, prompts in ((maps, asked), (again, moved))
    )
    shown = (first > OUTSIDE) & (second > OUTSIDE)
    return ((first.sigmoid() - second.sigmoid()).abs() * shown).sum() / shown.sum().clamp(min=1)
