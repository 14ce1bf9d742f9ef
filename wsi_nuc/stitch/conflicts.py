"""The conflict graph (which candidates outline the same nucleus), and which of its candidates are kept.

Cheap certain answers come first (boxes rule a pair out, octagons prove it), exact areas decide the rest. Every
test looks only at the two rings, so a pair is judged in the same way wherever and whenever it meets. `settle` then
goes through the candidates in the order of precedence and suppresses rivals, as far as the rows seen so far allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.stitch.candidates import Candidates
from wsi_nuc.stitch.overlap import intersection_areas, octagon_unions, overlapping, ring_areas
from wsi_nuc.stitch.precedence import rank
from wsi_nuc.stitch.rule import StitchRule
from wsi_nuc.types import Bool, Float64, Int64, UInt8

KEPT, OPEN, SUPPRESSED = 0, 1, 2
# Shortcuts only decide pairs that are clear by more than rounding; the exact area decides the rest.
_CLEAR = 1e-6


@dataclass(frozen=True, slots=True)
class Conflicts:
    """The K edges of the conflict graph, sorted by the precedence of the losers."""

    winner: Int64
    """K: the row that has precedence."""
    loser: Int64
    """K: its rival."""

    def __len__(self) -> int:
        return len(self.winner)


def conflicts(candidates: Candidates, rule: StitchRule) -> Conflicts:
    """All pairs of rivals."""
    areas = ring_areas(candidates.table)
    possible = [_possible(candidates.bounds, areas, pair, rule) for pair in overlapping(candidates.bounds)]
    a, b = np.concatenate([np.zeros((2, 0), np.int64), *possible], axis=1)
    rows, nodes = np.unique(np.concatenate([a, b]), return_inverse=True)
    place = rank(candidates.table, candidates.own, rows)
    by_place = np.argsort(place)
    # From here on, a row is known by its place, which only its content decides. So not even rounding depends on
    # the order of arrival.
    first, second = np.sort(place[nodes].reshape(2, -1), axis=0)
    order = np.lexsort((first, second))
    first, second = first[order], second[order]
    rows = rows[by_place]
    rivals = _rivals(candidates.table.select(rows), areas[rows], (first, second), rule)
    return Conflicts(rows[first[rivals]], rows[second[rivals]])


def _possible(bounds: Float64, areas: Float64, pair: tuple[Int64, Int64], rule: StitchRule) -> Int64:
    """2 x K: the pairs that the overlap of their boxes does not rule out."""
    a, b = pair
    size = np.minimum(bounds[a, 2:], bounds[b, 2:]) - np.maximum(bounds[a, :2], bounds[b, :2])
    most = np.minimum(size[:, 0] * size[:, 1], np.minimum(areas[a], areas[b]))
    keep = rule.rivals(most * (1 + _CLEAR), areas[a], areas[b])
    return np.stack([a[keep], b[keep]])


def _rivals(table: NucleiTable, areas: Float64, pair: tuple[Int64, Int64], rule: StitchRule) -> Bool:
    """K: whether each pair is in conflict, by its octagon or else by its exact area."""
    a, b = pair
    least = areas[a] + areas[b] - octagon_unions(table, a, b)
    rivals = rule.rivals(least * (1 - _CLEAR) - _CLEAR, areas[a], areas[b])
    unclear = np.flatnonzero(~rivals)
    a, b = a[unclear], b[unclear]
    rows = np.union1d(a, b)
    common = intersection_areas(table.select(rows), np.searchsorted(rows, a), np.searchsorted(rows, b))
    # Rounding must not make the common area larger than a ring that lies inside the other.
    common = np.minimum(common, np.minimum(areas[a], areas[b]))
    rivals[unclear] = rule.rivals(common, areas[a], areas[b])
    return rivals


def settle(closed: Bool, edges: Conflicts) -> UInt8:
    """N: KEPT, SUPPRESSED or OPEN. `closed`: whether all rivals of the row are among the given rows.

    The edges come in the order of precedence of their losers, so a winner's state is final when it is used. One
    pass decides all rows, and in a complete graph no row stays open.
    """
    state = np.where(closed, KEPT, OPEN).astype(np.uint8).tolist()
    for winner, loser in zip(edges.winner.tolist(), edges.loser.tolist(), strict=True):
        if state[winner] == KEPT:
            state[loser] = SUPPRESSED
        elif state[winner] == OPEN and state[loser] == KEPT:
            state[loser] = OPEN
    return np.array(state, np.uint8)
