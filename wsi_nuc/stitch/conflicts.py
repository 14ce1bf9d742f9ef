"""Which candidates overlap, which of them are doubles, and which are kept.

Cheap certain answers come first (octagons rule a pair out, or prove a double), exact areas decide the rest. Every
test looks only at the two rings, so a pair is judged in the same way wherever and whenever it meets. `settle` then
goes through the candidates in the order of precedence, as far as the rows seen so far allow.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from wsi_nuc.rings import Rings
from wsi_nuc.stitch.candidates import Candidates
from wsi_nuc.stitch.crossing import meetings
from wsi_nuc.stitch.overlap import Octagons, intersection_areas, overlapping
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
        columns = {f.name: getattr(self, f.name)[pairs] for f in fields(self) if f.name != "rest"}
        return Overlaps(**columns, rest=self.rest)


def overlaps(candidates: Candidates, closed: Bool, rule: StitchRule) -> Overlaps:
    """All pairs that overlap by more than rounding, and of which at least one row is closed."""
    parts = [np.stack([a, b])[:, closed[a] | closed[b]] for a, b in overlapping(candidates.bounds)]
    pairs = np.concatenate([np.zeros((2, 0), np.int64), *parts], axis=1)
    rows, (a, b) = _renumbered(pairs, len(candidates))
    all_rings = Rings(candidates.table.xy, candidates.table.offsets)
    rings, prompts, bounds = all_rings.select(rows), candidates.table.prompt_xy[rows], candidates.bounds[rows]
    signed, octagons = rings.signed_areas(prompts), Octagons.of(rings, bounds)
    areas = np.abs(signed)
    near = octagons.meet(a, b) & (areas[a] > 0) & (areas[b] > 0)
    used, (a, b) = _renumbered(np.stack([a[near], b[near]]), len(rows))
    place = rank(candidates.table, candidates.own, rows[used])
    # Only their content decides which row of a pair comes first, so not even rounding depends on their order here.
    first = place[a] < place[b]
    better, worse = np.where(first, a, b), np.where(first, b, a)
    order = np.lexsort((place[better], place[worse]))
    better, worse = used[better[order]], used[worse[order]]
    least = areas[better] + areas[worse] - octagons.unions(better, worse)
    double = rule.doubles(least * (1 - _CLEAR) - _CLEAR, areas[better], areas[worse])
    unclear = np.flatnonzero(~double)
    common, rest_row = np.where(double, least, 0.0), np.full(len(better), -1)
    pair = (better[unclear], worse[unclear])
    common[unclear], rest, rest_row[unclear] = _measured(rings, bounds, signed, pair)
    double[unclear] = rule.doubles(common[unclear], areas[pair[0]], areas[pair[1]])
    allowed = rule.covered * areas[worse]
    found = Overlaps(rows[better], rows[worse], common, allowed, double, rest, rest_row)
    return found.select(double | (common > _TOUCHING))


def _renumbered(rows: Int64, count: int) -> tuple[Int64, Int64]:
    """Which of `count` rows occur, in ascending order, and each of `rows` as its place among them."""
    occurs = np.zeros(count, np.bool_)
    occurs[rows] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[rows]


def _measured(
    rings: Rings, bounds: Float64, signed: Float64, pair: tuple[Int64, Int64]
) -> tuple[Float64, Rings, Int64]:
    """The area that each pair (better, worse) has in common; what is left of some of the worse ones; and which row
    of that, or -1. `signed`: the areas of the rows."""
    (better, worse), areas = pair, np.abs(signed)
    met = meetings(rings, bounds, signed > 0, (worse, better))
    common, rest_row = np.zeros(len(better)), np.full(len(better), -1)
    cut = worse[met.twice]
    common[met.twice] = areas[cut] - np.abs(met.rest.signed_areas())
    rest_row[met.twice] = np.arange(len(cut))
    further = (bounds[better] - bounds[worse]) * (1, 1, -1, -1)
    # Of two rings whose edges do not meet, the one can only lie in the other if its box does.
    nested = (further >= 0).all(axis=1) | (further <= 0).all(axis=1)
    other = np.flatnonzero(~met.twice & (nested | ~met.apart))
    rows, nodes = _renumbered(np.stack([better[other], worse[other]]), len(rings))
    common[other] = intersection_areas(rings.select(rows), *nodes)
    # Rounding must not make the common area larger than a ring that lies inside the other.
    return np.clip(common, 0, np.minimum(areas[better], areas[worse])), met.rest, rest_row


def settle(closed: Bool, decided: Bool, found: Overlaps) -> UInt8:
    """N: KEPT, SUPPRESSED or OPEN. `closed`: whether all that overlap the row are among the given rows. `decided`:
    whether an earlier pass has kept it, which closed it.

    The pairs come in the order of precedence of their worse rows, so the state of a better one is final when it is
    used. One pass decides all rows, and if all are closed, no row stays open.
    """
    state = np.where(closed, KEPT, OPEN).astype(np.uint8).tolist()
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
