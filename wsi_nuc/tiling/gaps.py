"""Boxes of a tile that the file has no pixels for, and how much of what the tile answers for lies in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import shapely

from wsi_nuc.tiling.plan import RegionTask
from wsi_nuc.types import Bool, Box, Float64, Int64, PixelBlock, Tile

BoxL0 = tuple[float, float, float, float]
Kind = Literal["missing", "damaged"]

NO_DATA = "the file holds no data"
# A mask of more boxes than this is told more coarsely: a list of single pixels helps nobody.
MOST_BOXES = 256
# Areas are sums of products of coordinates: what is left after a subtraction of equal ones is below this share.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Gap:
    """`box_l0`: x0, y0, x1, y1 in level-0 pixels, shown white. "missing": the file holds no data; "damaged":
    its data cannot be decoded, and `cause` says why. Gaps of one tile do not overlap."""

    box_l0: BoxL0
    kind: Kind
    cause: str

    def within(self, box_l0: BoxL0) -> Gap:
        """The part in the given box; of no area where the two do not meet."""
        x0, y0, x1, y1 = self.box_l0
        low = max(x0, box_l0[0]), max(y0, box_l0[1])
        return Gap((*low, max(low[0], min(x1, box_l0[2])), max(low[1], min(y1, box_l0[3]))), self.kind, self.cause)

    @property
    def polygon(self) -> Any:
        return shapely.box(*self.box_l0)


def gaps_in(block: PixelBlock, block_level: Box, tile_level: Box, downsample: float) -> tuple[Gap, ...]:
    """The gaps of what a tile reads (`tile_level`), from the block (`block_level`) that holds it; in order."""
    kinds: tuple[tuple[Kind, Bool | None, str], ...] = (
        ("missing", block.missing, NO_DATA),
        ("damaged", block.damaged, block.cause),
    )
    gaps = []
    for kind, mask, cause in kinds:
        if mask is None:
            continue
        x, y = tile_level.x0 - block_level.x0, tile_level.y0 - block_level.y0
        for box in boxes_of(mask[y : y + tile_level.height, x : x + tile_level.width]):
            at = box.shift(tile_level.x0, tile_level.y0)
            x0, y0, x1, y1 = (edge * downsample for edge in (at.x0, at.y0, at.x1, at.y1))
            gaps.append(Gap((x0, y0, x1, y1), kind, cause))
    return tuple(gaps)


def boxes_of(mask: Bool) -> list[Box]:
    """Boxes that cover the True pixels and do not overlap: exactly those pixels, unless they are too ragged."""
    height, width = mask.shape
    coarse, step = mask, 1
    while _runs(coarse[_bands(coarse)]).sum() > 2 * MOST_BOXES:
        step *= 2
        padded = np.pad(mask, ((0, -height % step), (0, -width % step)))
        coarse = np.asarray(padded.reshape(-(-height // step), step, -(-width // step), step).any(axis=(1, 3)))
    whole = Box(0, 0, width, height)
    return [Box(b.x0 * step, b.y0 * step, b.x1 * step, b.y1 * step).intersect(whole) for b in _boxes(coarse)]


def _boxes(mask: Bool) -> Iterator[Box]:
    """A box for each run of True in each band of equal rows."""
    starts = _bands(mask)
    for y0, y1 in zip(starts.tolist(), [*starts[1:].tolist(), len(mask)], strict=True):
        ends = np.flatnonzero(_runs(mask[y0 : y0 + 1])[0]).tolist()
        for x0, x1 in zip(ends[::2], ends[1::2], strict=True):
            yield Box(x0, y0, x1, y1)


def _bands(mask: Bool) -> Int64:
    """The rows that differ from the one above them; the first row is one."""
    return np.concatenate([[0], np.flatnonzero((mask[1:] != mask[:-1]).any(axis=1)) + 1])


def _runs(rows: Bool) -> Bool:
    """Where runs of True start and end in each row: one column more than there are pixels."""
    padded = np.pad(rows, ((0, 0), (1, 1)))
    return np.asarray(padded[:, 1:] != padded[:, :-1])


def places_in(task: RegionTask, tile: Tile, gaps: tuple[Gap, ...]) -> tuple[tuple[Gap, ...], float]:
    """What of the gaps lies in the tile's core, where that meets the area; and the share of the core within the
    area that they take."""
    if not gaps:
        return (), 0.0
    x0, y0, x1, y1 = task.grid.core_boxes_l0(np.array([tile.index]))[0].tolist()
    wanted = shapely.intersection(np.array(task.area_pieces, dtype=object), shapely.box(x0, y0, x1, y1))
    whole = float(shapely.area(wanted).sum())
    places, lost = [], 0.0
    for gap in gaps:
        place = gap.within((x0, y0, x1, y1))
        area = float(shapely.area(shapely.intersection(wanted, place.polygon)).sum())
        if area > 0:
            places.append(place)
            lost += area
    share = lost / whole if whole else 0.0
    return tuple(places), 1.0 if share > 1 - ROUNDING else share


def in_gaps(gaps: Sequence[Gap], xy_l0: Float64) -> Bool:
    """Which of the points (N x 2) lie in a gap."""
    inside: Bool = np.zeros(len(xy_l0), np.bool_)
    for x0, y0, x1, y1 in (gap.box_l0 for gap in gaps):
        inside |= (xy_l0 >= (x0, y0)).all(axis=1) & (xy_l0 < (x1, y1)).all(axis=1)
    return inside
