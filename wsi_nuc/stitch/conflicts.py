"""The conflict graph: which candidates outline the same nucleus.

Cheap certain answers first (boxes rule out, octagons prove), exact areas for the rest. Every test looks at the two
rings alone, so a pair is judged the same wherever and whenever it meets.

Greedy suppression in the order of precedence, as far as what has been seen allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.stitch.candidates import Candidates
from wsi_nuc.stitch.order import rank
from wsi_nuc.stitch.overlap import intersection_areas, octagon_unions, overlapping, ring_areas
from wsi_nuc.stitch.rule import StitchRule
from wsi_nuc.types import Bool, Float64, Int64, UInt8

# Shortcuts decide only what is clear by more than rounding; the exact area decides the rest.
_CLEAR = 1e-6


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Edge k: `winner[k]` has precedence over `loser[k]`; sorted by the precedence of the losers."""

    winner: Int64
    loser: Int64

    def __len__(self) -> int:
        return len(self.winner)


def conflicts(candidates: Candidates, rule: StitchRule) -> Conflicts:
    """All pairs of rivals."""
    areas = ring_areas(candidates.table)
    found = [_possible(candidates.bounds, areas, pair, rule) for pair in overlapping(candidates.bounds)]
    a, b = np.concatenate([np.zeros((2, 0), np.int64), *found], axis=1)
    rows, nodes = np.unique(np.concatenate([a, b]), return_inverse=True)
    place = rank(candidates.table, candidates.own, rows)
    by_place = np.argsort(place)
    # From here on a row is known by its place, which content alone decides: rounding, too, cannot then
    # depend on the order of arrival.
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
    keep = _in_conflict(most * (1 + _CLEAR), areas[a], areas[b], rule)
    return np.stack([a[keep], b[keep]])


def _rivals(table: NucleiTable, areas: Float64, pair: tuple[Int64, Int64], rule: StitchRule) -> Bool:
    a, b = pair
    least = areas[a] + areas[b] - octagon_unions(table, a, b)
    rivals = _in_conflict(least * (1 - _CLEAR) - _CLEAR, areas[a], areas[b], rule)
    unclear = np.flatnonzero(~rivals)
    a, b = a[unclear], b[unclear]
    rows = np.union1d(a, b)
    common = intersection_areas(table.select(rows), np.searchsorted(rows, a), np.searchsorted(rows, b))
    # Of a ring inside the other, rounding must not make more than the whole.
    common = np.minimum(common, np.minimum(areas[a], areas[b]))
    rivals[unclear] = _in_conflict(common, areas[a], areas[b], rule)
    return rivals


def _in_conflict(common: Float64, area_a: Float64, area_b: Float64, rule: StitchRule) -> Bool:
    """The rule itself, written without divisions; rings without area never conflict."""
    nested = common > rule.containment * np.minimum(area_a, area_b)
    same = common > rule.iou * (area_a + area_b - common)
    conflict: Bool = nested | same
    return conflict


KEPT, OPEN, SUPPRESSED = 0, 1, 2


def settle(closed: Bool, edges: Conflicts) -> UInt8:
    """N uint8: KEPT, SUPPRESSED or OPEN. `closed`: all rivals of the row are among the rows given.

    The edges come in the order of precedence of their losers, so a winner's state is final when it is used:
    one pass decides all, and in a complete graph nothing stays open.
    """
    state = np.where(closed, KEPT, OPEN).astype(np.uint8).tolist()
    for winner, loser in zip(edges.winner.tolist(), edges.loser.tolist(), strict=True):
        if state[winner] == KEPT:
            state[loser] = SUPPRESSED
        elif state[winner] == OPEN and state[loser] == KEPT:
            state[loser] = OPEN
    return np.array(state, np.uint8)
