"""Which candidates overlap, which of them are doubles, and which are kept.

Cheap certain answers come first (octagons rule a pair out, or prove a double), exact areas decide the rest. Every
test looks only at the two rings, so a pair is judged in the same way wherever and whenever it meets. `settle` then
goes through the candidates in the order of precedence, as far as the rows seen so far allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.stitch.candidates import Candidates
from wsi_nuc.stitch.crossing import meetings
from wsi_nuc.stitch.overlap import Octagons, intersection_areas, overlapping, ring_areas
from wsi_nuc.stitch.precedence import rank
from wsi_nuc.stitch.rule import StitchRule
from wsi_nuc.types import Bool, Float64, Int64, UInt8

KEPT, OPEN, SUPPRESSED = 0, 1, 2
# Shortcuts only decide pairs that are clear by more than rounding; the exact area decides the rest.
_CLEAR = 1e-6
# Outlines that touch have no more than this in common, in square pixels of level 0, which is rounding.
_TOUCHING = 1e-6


@dataclass(frozen=True, slots=True)
class Overlaps:
    """K pairs of rows that overlap, sorted by the precedence of the worse one, then of the better one."""

    better: Int64
    """K: the row that has precedence."""
    worse: Int64
    common: Float64
    """K: the area that the two have in common. For `double`, this may be a lower bound."""
    allowed: Float64
    """K: how much of the worse one better ones may cover."""
    double: Bool
    """K: whether the worse one is a double of this better one alone."""
    rest: Rings
    """What better rows leave of worse ones, for some pairs."""
    rest_row: Int64
    """K: the row of `rest`, or -1."""

    def select(self, pairs: Bool) -> Overlaps:
        columns = (self.better, self.worse, self.common, self.allowed, self.double)
        return Overlaps(*(column[pairs] for column in columns), self.rest, self.rest_row[pairs])


def overlaps(candidates: Candidates, rule: StitchRule) -> Overlaps:
    """All pairs that overlap by more than rounding."""
    parts = [np.stack(pair) for pair in overlapping(candidates.bounds)]
    pairs = np.concatenate([np.zeros((2, 0), np.int64), *parts], axis=1)
    rows, nodes = np.unique(pairs, return_inverse=True)
    table = candidates.table.select(rows)
    areas, octagons = ring_areas(table), Octagons.of(table)
    a, b = nodes.reshape(2, -1)
    near = octagons.meet(a, b) & (np.minimum(areas[a], areas[b]) > 0)
    a, b = a[near], b[near]
    place = np.zeros(len(rows), np.int64)
    used = np.unique(np.concatenate([a, b]))
    place[used] = rank(candidates.table, candidates.own, rows[used])
    # From here on, only their content decides which row of a pair comes first, and so do the last bits of its area.
    better, worse = np.where(place[a] < place[b], a, b), np.where(place[a] < place[b], b, a)
    order = np.lexsort((place[better], place[worse]))
    better, worse = better[order], worse[order]
    least = areas[better] + areas[worse] - octagons.unions(better, worse)
    double = rule.doubles(least * (1 - _CLEAR) - _CLEAR, areas[better], areas[worse])
    unclear = np.flatnonzero(~double)
    common, rest_row = np.where(double, least, 0.0), np.full(len(better), -1)
    common[unclear], rest, rest_row[unclear] = _measured(table, areas, better[unclear], worse[unclear])
    double[unclear] = rule.doubles(common[unclear], areas[better[unclear]], areas[worse[unclear]])
    allowed = rule.covered * areas[worse]
    found = Overlaps(rows[better], rows[worse], common, allowed, double, rest, rest_row)
    return found.select(double | (common > _TOUCHING))


def _measured(table: NucleiTable, areas: Float64, better: Int64, worse: Int64) -> tuple[Float64, Rings, Int64]:
    """The area that each pair has in common; what is left of some of the worse ones; and which row of it, or -1."""
    met = meetings(table, worse, better)
    common, rest_row = np.zeros(len(better)), np.full(len(better), -1)
    cut = worse[met.twice]
    common[met.twice] = areas[cut] - np.abs(met.rest.signed_areas(table.prompt_xy[cut]))
    rest_row[met.twice] = np.arange(len(cut))
    bounds = table.bounds()
    low = np.sign(bounds[better, :2] - bounds[worse, :2])
    high = np.sign(bounds[worse, 2:] - bounds[better, 2:])
    # Of two rings whose edges do not meet, the one can only lie in the other if its box does.
    nested = (np.hstack([low, high]) >= 0).all(axis=1) | (np.hstack([low, high]) <= 0).all(axis=1)
    other = np.flatnonzero(~met.twice & (nested | ~met.apart))
    common[other] = intersection_areas(table, better[other], worse[other])
    # Rounding must not make the common area larger than a ring that lies inside the other.
    return np.clip(common, 0, np.minimum(areas[better], areas[worse])), met.rest, rest_row


def settle(closed: Bool, decided: Bool, found: Overlaps) -> UInt8:
    """N: KEPT, SUPPRESSED or OPEN. `closed`: whether all that overlap the row are among the given rows. `decided`:
    whether an earlier pass has kept it.

    The pairs come in the order of precedence of their worse rows, so the state of a better one is final when it is
    used. One pass decides all rows, and if all are closed, no row stays open.
    """
    state = np.where(closed | decided, KEPT, OPEN).astype(np.uint8).tolist()
    covered = [0.0] * len(state)
    done = decided.tolist()
    columns = (found.better, found.worse, found.common, found.allowed, found.double)
    for better, worse, common, allowed, double in zip(*(column.tolist() for column in columns), strict=True):
        if done[worse]:
            continue
        if state[better] == KEPT:
            covered[worse] += common
            if double or covered[worse] > allowed:
                state[worse] = SUPPRESSED
        elif state[better] == OPEN and state[worse] == KEPT:
            state[worse] = OPEN
    return np.array(state, np.uint8)
