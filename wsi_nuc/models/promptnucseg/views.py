"""Test-time augmentation: six views of the same pixels (as they are, two flips, three rotations), averaged.

Positions count from the corner of the first pixel, so a mirrored x is the width minus x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wsi_nuc.models.promptnucseg.net import Proposed

INDEX_TO_CORNER = 0.5
Size = tuple[int, int]
# The released code rotates pixel indices about 128, which is half a pixel off the centre of 256 pixels.
RELEASED_SLIP_PX = 1.0


@dataclass(frozen=True, slots=True)
class View:
    """A mirrored or rotated view of an image."""

    flip: int = 0
    """The mirrored axis: -1 swaps left and right, -2 swaps top and bottom, 0 swaps nothing."""
    turns: int = 0
    """Quarter turns anticlockwise."""

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """The image (... x H x W) as this view shows it."""
        return image.flip(self.flip) if self.flip else image.rot90(self.turns, (-2, -1))

    def undo(self, seen: torch.Tensor) -> torch.Tensor:
        return seen.flip(self.flip) if self.flip else seen.rot90(-self.turns, (-2, -1))

    def size(self, size: Size) -> Size:
        """Height and width of the view of an image of this height and width."""
        return size[::-1] if self.turns % 2 else size

    def points(self, xy: torch.Tensor, size: Size, slip_px: float = 0.0) -> torch.Tensor:
        """Where this view shows the points (... x 2) of an image of `size`, `slip_px` off at every rotation."""
        x, y = xy.unbind(-1)
        if self.flip:
            mirrored = (size[1] - x, y) if self.flip == -1 else (x, size[0] - y)
            return torch.stack(mirrored, -1)
        return torch.stack(_turned(x, y, size, self.turns, slip_px), -1)

    def undo_points(self, xy: torch.Tensor, size: Size) -> torch.Tensor:
        """The inverse of `points`; `size` is still the size of the image."""
        if self.flip:
            return self.points(xy, size)
        x, y = xy.unbind(-1)
        return torch.stack(_turned(x, y, self.size(size), -self.turns % 4, 0.0), -1)


AS_IT_IS = View()
SIX_VIEWS = (AS_IT_IS, View(flip=-1), View(flip=-2), View(turns=1), View(turns=2), View(turns=3))


def views_for(tta: bool) -> tuple[View, ...]:
    return SIX_VIEWS if tta else (AS_IT_IS,)


def _turned(
    x: torch.Tensor, y: torch.Tensor, size: Size, turns: int, slip_px: float
) -> tuple[torch.Tensor, torch.Tensor]:
    for _ in range(turns):
        x, y, size = y, size[1] - x + slip_px, size[::-1]
    return x, y


def average_proposed(proposed: Sequence[Proposed], views: Sequence[View], space_px: int) -> Proposed:
    """One proposal per anchor: its place and its probabilities, averaged over the views.

    Flips and rotations map the grid of anchors onto itself, so each anchor has its partner in every view.
    """
    first, size = proposed[0], proposed[0].size
    if len(views) == 1:
        return first
    places, probs, masks = [], [], []
    for seen, view in zip(proposed, views, strict=True):
        rows = -(-seen.size[0] // space_px)
        xy = view.undo_points(seen.xy + INDEX_TO_CORNER, size) - INDEX_TO_CORNER
        places.append(_undo_anchors(xy, view, rows))
        probs.append(_undo_anchors(seen.logits.softmax(-1), view, rows))
        if seen.mask_logits is not None:
            masks.append(view.undo(seen.mask_logits.float()))
    logits = torch.stack(probs).mean(0).clamp(min=torch.finfo(torch.float32).tiny).log()
    return Proposed(torch.stack(places).mean(0), logits, torch.stack(masks).mean(0) if masks else None, size)


def _undo_anchors(values: torch.Tensor, view: View, rows: int) -> torch.Tensor:
    """B x anchors x n, in the order of the image's anchors instead of the view's."""
    grid = values.reshape(len(values), rows, -1, values.shape[-1]).permute(0, 3, 1, 2)
    return view.undo(grid).permute(0, 2, 3, 1).flatten(1, 2)
