"""Which candidates overlap, which of them outline the same nucleus, and which of those are kept.

Cheap certain answers come first (octagons rule a pair out, or prove it), exact areas decide the rest. Every test
looks only at the two rings, so a pair is judged in the same way wherever and whenever it meets. `settle` then goes
through the candidates in the order of precedence and suppresses rivals, as far as the rows seen so far allow.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from wsi_nuc.rings import Rings
from wsi_nuc.stitch.candidates import Candidates
from wsi_nuc.stitch.crossing import Meetings, meetings
from wsi_nuc.stitch.overlap import Octagons, intersection_areas, overlapping
from wsi_nuc.stitch.precedence import rank
from wsi_nuc.stitch.rivals import StitchRule, worse_keeps
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
    rivals: Bool
    """K: whether the two outline the same nucleus."""
    owner: Int64
    """K: the one of the two that keeps what they share, if both are kept."""
    loser: Int64
    """K: the other one."""
    rest: Rings
    """What owners leave of losers, for some pairs."""
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
    rivals = rule.rivals(least * (1 - _CLEAR) - _CLEAR, areas[better], areas[worse])
    unclear = np.flatnonzero(~rivals)
    pair = (better[unclear], worse[unclear])
    common, rest_row = least, np.full(len(better), -1)
    met = _meetings(rings, bounds, signed, pair)
    common[unclear] = _common(rings, bounds, areas, pair, met)
    rest_row[unclear[met.twice]] = np.arange(len(met.rest))
    rivals[unclear] = rule.rivals(common[unclear], areas[pair[0]], areas[pair[1]])
    own = candidates.own[rows]
    # Candidates of the margin only fill gaps.
    keeps = worse_keeps(common, areas[better], areas[worse]) & (own[better] == own[worse])
    owner, loser = np.where(keeps, worse, better), np.where(keeps, better, worse)
    turned = np.flatnonzero(keeps & ~rivals)
    other = _meetings(rings, bounds, signed, (owner[turned], loser[turned]))
    rest_row[turned] = -1
    rest_row[turned[other.twice]] = len(met.rest) + np.arange(len(other.rest))
    rest = Rings.concat([met.rest, other.rest])
    shared = Overlaps(rows[better], rows[worse], rivals, rows[owner], rows[loser], rest, rest_row)
    return shared.select(rivals | (common > _TOUCHING))


def _renumbered(rows: Int64, count: int) -> tuple[Int64, Int64]:
    """Which of `count` rows occur, in ascending order, and each of `rows` as its place among them."""
    occurs = np.zeros(count, np.bool_)
    occurs[rows] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[rows]


def _meetings(rings: Rings, bounds: Float64, signed: Float64, pair: tuple[Int64, Int64]) -> Meetings:
    """How the rings of pairs meet, and what the first ring of each leaves of its second one. `signed`: the areas
    of all rings."""
    rows, (first, second) = _renumbered(np.stack(pair), len(rings))
    return meetings(rings.select(rows), bounds[rows], signed[rows] > 0, (second, first))


def _common(rings: Rings, bounds: Float64, areas: Float64, pair: tuple[Int64, Int64], met: Meetings) -> Float64:
    """The area that the rings of each pair have in common."""
    first, second = pair
    common = np.zeros(len(first))
    common[met.twice] = areas[second[met.twice]] - np.abs(met.rest.signed_areas())
    further = (bounds[first] - bounds[second]) * (1, 1, -1, -1)
    # Of two rings whose edges do not meet, the one can only lie in the other if its box does.
    nested = (further >= 0).all(axis=1) | (further <= 0).all(axis=1)
    other = np.flatnonzero(~met.twice & (nested | ~met.apart))
    rows, nodes = _renumbered(np.stack([first[other], second[other]]), len(rings))
    common[other] = intersection_areas(rings.select(rows), *nodes)
    # Rounding must not make the common area larger than a ring that lies inside the other.
    return np.clip(common, 0, np.minimum(areas[first], areas[second]))


def settle(closed: Bool, shared: Overlaps) -> UInt8:
    """N: KEPT, SUPPRESSED or OPEN. `closed`: whether all rivals of the row are among the given rows.

    The pairs come in the order of precedence of their worse rows, so the state of a better one is final when it is
    used. One pass decides all rows, and if all are closed, no row stays open.
    """
    state = np.where(closed, KEPT, OPEN).astype(np.uint8).tolist()
    pairs = (shared.better[shared.rivals].tolist(), shared.worse[shared.rivals].tolist())
    for better, worse in zip(*pairs, strict=True):
        if state[better] == KEPT:
            state[worse] = SUPPRESSED
        elif state[better] == OPEN and state[worse] == KEPT:
            state[worse] = OPEN
    return np.array(state, np.uint8)
