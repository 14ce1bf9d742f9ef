"""Two total orders of nuclei that depend only on their content: which one wins, and which is written first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.stitch.geometry import StitchGeometry
from wsi_nuc.types import Bool, Float64, Int64

UInt64 = npt.NDArray[np.uint64]


def rank(table: NucleiTable, own: Bool, rows: Int64) -> Int64:
    """Position of each of `rows` in the order of precedence, 0 first.

    Candidates of a tile's own core come first, then higher scores. Ties are broken by y, x, tile and, at last, all
    other columns. So only rows that are equal in every column can change places, which makes no difference.
    """
    place = np.empty(len(rows), np.int64)
    place[_order(table, own, rows)] = np.arange(len(rows))
    return place


def _order(table: NucleiTable, own: Bool, rows: Int64) -> Int64:
    # Few candidates have the same score, so only those are sorted by more.
    keys = [~own[rows], -np.nan_to_num(table.score[rows], nan=-1.0)]
    order: Int64 = np.lexsort(keys[::-1]).astype(np.int64)
    slots = _tied(keys, order)
    if len(slots):
        tied = order[slots]
        order[slots] = tied[_order_of_tied(table, rows[tied], [key[tied] for key in keys])]
    return order


def _order_of_tied(table: NucleiTable, rows: Int64, first: list[npt.NDArray[np.generic]]) -> Int64:
    xy = table.prompt_xy[rows]
    keys = [*first, xy[:, 1], xy[:, 0], table.tile[rows]]
    order: Int64 = np.lexsort(keys[::-1]).astype(np.int64)
    tied = order[_tied(keys, order)]
    if len(tied):
        rest = dict(zip(tied.tolist(), _other_columns(table.select(rows[tied])), strict=True))
        for start, stop in _runs(keys, order):
            order[start:stop] = sorted(order[start:stop].tolist(), key=rest.__getitem__)
    return order


def _other_columns(table: NucleiTable) -> list[list[object]]:
    """For each row, what decides where the first keys are equal."""
    scores = np.column_stack([table.prompt_score, table.predicted_iou, table.class_probs])
    numbers = np.column_stack([np.nan_to_num(scores, nan=-1.0), table.ring_lengths]).tolist()
    vertices, ends = table.xy.ravel().tolist(), (2 * table.offsets).tolist()
    return [[*values, *vertices[ends[row] : ends[row + 1]]] for row, values in enumerate(numbers)]


def _as_before(keys: Sequence[npt.NDArray[np.generic]], order: Int64) -> Bool:
    """N + 1: which rows in `order` equal the one before them in all keys. The first row has none before it, and
    there is none after the last one."""
    same = np.zeros(len(order) + 1, np.bool_)
    same[1:-1] = True
    for key in keys:
        values = key[order]
        same[1:-1] &= values[:-1] == values[1:]
    return same


def _tied(keys: Sequence[npt.NDArray[np.generic]], order: Int64) -> Int64:
    """The places in `order` of the rows that equal a neighbour there in all keys."""
    same = _as_before(keys, order)
    return np.flatnonzero(same[:-1] | same[1:])


def _runs(keys: Sequence[npt.NDArray[np.generic]], order: Int64) -> Iterator[tuple[int, int]]:
    """The stretches of `order` that are equal in all keys."""
    same = _as_before(keys, order)
    edges = np.flatnonzero(same[1:] != same[:-1])
    for start, stop in edges.reshape(-1, 2).tolist():
        yield start, stop + 1


def canonical(table: NucleiTable, geometry: StitchGeometry) -> Int64:
    """The order in which the nuclei of a block are written: along a Morton curve over their prompts."""
    xy = table.prompt_xy
    curve = _morton((xy + geometry.block_shift_l0) % geometry.block_l0)
    order: Int64 = np.argsort(curve, kind="stable").astype(np.int64)
    # Few prompts lie in one pixel, so only those are sorted by more.
    slots = _tied([curve], order)
    keys: list[npt.NDArray[np.generic]] = [curve, xy[:, 1], xy[:, 0]]
    tied = order[slots]
    tied = tied[np.lexsort([key[tied] for key in keys[::-1]])]
    for start, stop in _runs(keys, tied):
        same = tied[start:stop]
        tied[start:stop] = same[_order(table, np.ones(len(table), bool), same)]
    order[slots] = tied
    return order


def _morton(xy: Float64) -> UInt64:
    """Interleaved bits of x and y (whole pixels, 16 bits each)."""
    bits = np.clip(xy, 0, 65535).astype(np.uint64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
    curve: UInt64 = bits[:, 0] | (bits[:, 1] << np.uint64(1))
    return curve
