"""Two looks at one crop must agree, wherever the grid of strides begins: the second is moved by a few pixels.

What is compared is what the use of the network reads: region and masks enlarged to pixels, as for outlines, and
the smoothed heat between its cells. So any move counts, also one that no stride divides.
"""

from __future__ import annotations

import torch

from wsi_nuc.models.compact.net import OUTSIDE, Asked, CompactNet, Maps, mask_windows
from wsi_nuc.models.compact.prompter import smoothed
from wsi_nuc.models.compact.segmentor import enlarged
from wsi_nuc.models.compact.settings import MASK_STRIDE, POINT_STRIDE
from wsi_nuc.training.compact.crops import Batch

SHARE = 0.5  # of the batch is looked at again
FARTHEST_PX = 32  # moves are below it
EDGE_PX = 32  # nearer to the edge of a crop both looks see too little
MOST_PROMPTS = 128


def agreement_loss(net: CompactNet, maps: Maps, pixels: torch.Tensor, batch: Batch, side: int) -> torch.Tensor:
    """Mean difference of the probabilities of region, heat and masks, summed. `maps`: of `pixels`, the whole
    batch; `side`: cells of a prompt's window at stride 2."""
    count = max(1, int(len(pixels) * SHARE))
    x, y = (int(step) for step in torch.randint(0, FARTHEST_PX, (2,)))
    again = net(torch.roll(pixels[:count], (y, x), (2, 3)))
    loss = _apart(_at_pixels(maps, count), _at_pixels(again, count), x, y)
    return loss + _masks_apart(net, maps, again, _prompts(batch, count, pixels.shape[2] - max(x, y)), (x, y), side)


def _at_pixels(maps: Maps, count: int) -> torch.Tensor:
    """2 x B x H x W: probabilities of region and heat of the first `count` crops, at every pixel."""
    heat = torch.stack([smoothed(heat) for heat in maps.heat[:count].float().sigmoid()])
    region = maps.region[:count, 0].float().sigmoid()
    return torch.stack([enlarged(region), enlarged(heat, POINT_STRIDE)])


def _apart(before: torch.Tensor, after: torch.Tensor, x: int, y: int) -> torch.Tensor:
    """Mean difference of each kind where both looks show the same pixels, away from the edges; summed."""
    height, width = before.shape[2] - y, before.shape[3] - x
    same = before[..., :height, :width] - after[..., y:, x:]
    return same[..., EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX].abs().mean((1, 2, 3)).sum()


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
    # A window begins at a whole cell, so an odd move shows the nucleus a pixel further left or right in it.
    cells = (asked.xy / MASK_STRIDE).floor() - (moved.xy / MASK_STRIDE).floor()
    slip = (way + MASK_STRIDE * cells).long()
    first, second = (mask_windows(net.decoder, seen, of, side) for seen, of in ((maps, asked), (again, moved)))
    windows = ((first, slip * 0), (second, slip))
    shown = [_slipped(enlarged((logits > OUTSIDE).float()), by) for logits, by in windows]
    probs = [_slipped(enlarged(logits.sigmoid()), by) for logits, by in windows]
    both = shown[0] * shown[1] >= 1
    return ((probs[0] - probs[1]).abs() * both).sum() / both.sum().clamp(min=1)


def _slipped(windows: torch.Tensor, slip: torch.Tensor) -> torch.Tensor:
    """N x (S - 2) x (S - 2): each of N x S x S windows without its rim, taken `slip` pixels further on. `slip`:
    N x 2, x and y, of -1, 0 or 1."""
    for dim, way in ((2, slip[:, 0, None, None]), (1, slip[:, 1, None, None])):
        size = windows.shape[dim] - 2
        back, still, on = (windows.narrow(dim, start, size) for start in (0, 1, 2))
        windows = torch.where(way > 0, on, torch.where(way < 0, back, still))
    return windows
