"""Where two outlines cross, and what the one leaves of the other if they cross at two places, all in arrays.

Nearly all outlines that overlap do. What is left then runs along the one outline outside of the other, and along the
other one inside of it. All its vertices but the two crossings are vertices of the two outlines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.rings import Rings, chunks, offsets_of, ranges
from wsi_nuc.types import Bool, Float64, Int64

_EDGE_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Meetings:
    """How the rings of K pairs meet."""

    apart: Bool
    """K: no edge of the one meets an edge of the other."""
    twice: Bool
    """K: they cross at two places, and touch nowhere."""
    rest: Rings
    """What the second ring leaves of the first, for each pair that is `twice`."""


@dataclass(frozen=True, slots=True)
class _Edges:
    """The M edges of all rings, from a vertex to its successor."""

    x: Float64
    y: Float64
    run: Float64
    rise: Float64
    low: tuple[Float64, Float64]
    """The smaller x and the smaller y of the two ends."""
    high: tuple[Float64, Float64]

    @classmethod
    def of(cls, rings: Rings) -> _Edges:
        x, y = np.ascontiguousarray(rings.xy.T)
        after = rings.successors
        next_x, next_y = x[after], y[after]
        low, high = (np.minimum(x, next_x), np.minimum(y, next_y)), (np.maximum(x, next_x), np.maximum(y, next_y))
        return cls(x, y, next_x - x, next_y - y, low, high)


@dataclass(frozen=True, slots=True)
class _Crossings:
    """The places where an edge of a pair's first ring crosses an edge of its second ring, sorted by pair."""

    pair: Int64
    first: Int64
    """The edge of the first ring."""
    second: Int64
    along: tuple[Float64, Float64]
    """How far along each of the two edges, from 0 to 1."""
    left: Bool
    """Whether the second edge goes to the left of the first one, seen with y up."""

    def at(self, rows: Int64) -> _Crossings:
        along = (self.along[0][rows], self.along[1][rows])
        return _Crossings(self.pair[rows], self.first[rows], self.second[rows], along, self.left[rows])


def meetings(rings: Rings, first: Int64, second: Int64) -> Meetings:
    """Of ring first[k] and ring second[k], for each k. A pair is judged by its own vertices alone."""
    if not len(first):
        return Meetings(np.zeros(0, np.bool_), np.zeros(0, np.bool_), Rings.of([]))
    edges, anticlockwise = _Edges.of(rings), rings.signed_areas() > 0
    found, touching = _crossings(rings, edges, first, second)
    count = np.bincount(found.pair, minlength=len(first))
    twice = (count == 2) & ~touching
    rows = np.flatnonzero(twice[found.pair])
    # At a crossing, the first ring goes into the second one or out of it. Of two, one goes in, unless a ring is invalid.
    enters = found.left[rows] != anticlockwise[second[found.pair[rows]]]
    regular = enters[0::2] != enters[1::2]
    twice[found.pair[rows[0::2][~regular]]] = False
    rows, enters = rows[np.repeat(regular, 2)], enters[np.repeat(regular, 2)]
    into, out = found.at(rows[enters]), found.at(rows[~enters])
    ends = (first[into.pair], second[into.pair])
    rest = _along_both(rings, edges, ends, into, out, into.left == anticlockwise[ends[0]])
    return Meetings((count == 0) & ~touching, twice, rest)


def _crossings(rings: Rings, edges: _Edges, first: Int64, second: Int64) -> tuple[_Crossings, Bool]:
    """All crossings, and for each pair whether its rings touch in a vertex or along an edge."""
    bounds = rings.bounds()
    low = np.maximum(bounds[first, :2], bounds[second, :2])
    high = np.minimum(bounds[first, 2:], bounds[second, 2:])
    touching = np.zeros(len(first), np.bool_)
    parts = []
    for start, stop in chunks(rings.ring_lengths[first] * rings.ring_lengths[second], _EDGE_PAIRS_AT_ONCE):
        part = slice(start, stop)
        pair, a, b = _near(rings, edges, (first[part], second[part]), (low[part], high[part]))
        # On which side of the one edge the ends of the other lie. Exact, as coordinates are multiples of 1/64 px.
        x, y = edges.x[b] - edges.x[a], edges.y[b] - edges.y[a]
        run_a, rise_a, run_b, rise_b = edges.run[a], edges.rise[a], edges.run[b], edges.rise[b]
        turn = run_a * rise_b - rise_a * run_b
        of_b, of_a = x * rise_a - y * run_a, x * rise_b - y * run_b
        begin_b, end_b = -of_b, run_a * (y + rise_b) - rise_a * (x + run_b)
        begin_a, end_a = of_a, run_b * (rise_a - y) - rise_b * (run_a - x)
        meet = (begin_b * end_b <= 0) & (begin_a * end_a <= 0)
        cross = meet & (begin_b * end_b < 0) & (begin_a * end_a < 0)
        touching[start + pair[meet & ~cross]] = True
        rows = np.flatnonzero(cross)
        along = (of_a[rows] / turn[rows], of_b[rows] / turn[rows])
        parts.append(_Crossings(start + pair[rows], a[rows], b[rows], along, turn[rows] > 0))
    return _joined(parts), touching


def _joined(parts: list[_Crossings]) -> _Crossings:
    if len(parts) == 1:
        return parts[0]
    pair, first, second, left = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("pair", "first", "second", "left")
    )
    along = [np.concatenate([part.along[ring] for part in parts]) for ring in (0, 1)]
    return _Crossings(pair, first, second, (along[0], along[1]), left)


def _near(
    rings: Rings, edges: _Edges, pair: tuple[Int64, Int64], box: tuple[Float64, Float64]
) -> tuple[Int64, Int64, Int64]:
    """Pair, edge of its first ring, edge of its second ring, wherever the boxes of the edges meet."""
    (pair_a, edge_a), (pair_b, edge_b) = (_within(rings, edges, ring, box) for ring in pair)
    per_pair = np.bincount(pair_b, minlength=len(pair[0]))
    count = per_pair[pair_a]
    row_a = np.repeat(np.arange(len(edge_a)), count)
    a, b = edge_a[row_a], edge_b[ranges(offsets_of(per_pair)[pair_a], count)]
    meet = np.ones(len(a), np.bool_)
    for axis in (0, 1):
        low, high = edges.low[axis], edges.high[axis]
        meet &= (low[a] <= high[b]) & (low[b] <= high[a])
    return pair_a[row_a[meet]], a[meet], b[meet]


def _within(rings: Rings, edges: _Edges, ring: Int64, box: tuple[Float64, Float64]) -> tuple[Int64, Int64]:
    """Pair and edge, for the edges of the rings that reach into the pair's box."""
    count = rings.ring_lengths[ring]
    pair, edge = np.repeat(np.arange(len(ring)), count), ranges(rings.starts[ring], count)
    for axis in (0, 1):
        low, high = edges.low[axis], edges.high[axis]
        reaches = np.flatnonzero((low[edge] <= box[1][pair, axis]) & (high[edge] >= box[0][pair, axis]))
        pair, edge = pair[reaches], edge[reaches]
    return pair, edge


def _along_both(
    rings: Rings,
    edges: _Edges,
    ends: tuple[Int64, Int64],
    into: _Crossings,
    out: _Crossings,
    forward: Bool,
) -> Rings:
    """From where each first ring leaves the second one along itself to where it enters, and back along the second.

    `forward`: whether that way back follows the order of the second ring's vertices.
    """
    (begin_a, begin_b), (size_a, size_b) = (
        [rings.starts[ring] for ring in ends],
        [rings.ring_lengths[ring] for ring in ends],
    )
    # If both crossings lie on one edge, the way is a part of this edge, or all vertices.
    same_a, same_b = into.first == out.first, into.second == out.second
    count_a = (into.first - out.first) % size_a
    count_a[same_a & (into.along[0] < out.along[0])] = size_a[same_a & (into.along[0] < out.along[0])]
    step = np.where(forward, 1, -1)
    count_b = (step * (out.second - into.second)) % size_b
    around = same_b & ((into.along[1] > out.along[1]) == forward)
    count_b[around] = size_b[around]
    rest = offsets_of(count_a + count_b + 2)
    xy = np.empty((rest[-1], 2))
    xy[rest[:-1]], xy[rest[:-1] + 1 + count_a] = _places(edges, out), _places(edges, into)
    pair = np.repeat(np.arange(len(count_a)), count_a)
    place = ranges(np.zeros(len(count_a), np.int64), count_a)
    vertex = (out.first - begin_a)[pair] + 1 + place
    xy[(rest[:-1] + 1)[pair] + place] = rings.xy[begin_a[pair] + vertex % size_a[pair]]
    pair = np.repeat(np.arange(len(count_b)), count_b)
    place = ranges(np.zeros(len(count_b), np.int64), count_b)
    vertex = (into.second - begin_b + forward)[pair] + step[pair] * place
    xy[(rest[:-1] + 2 + count_a)[pair] + place] = rings.xy[begin_b[pair] + vertex % size_b[pair]]
    return Rings(xy, rest)


def _places(edges: _Edges, at: _Crossings) -> Float64:
    x, y = edges.x[at.first] + at.along[0] * edges.run[at.first], edges.y[at.first] + at.along[0] * edges.rise[at.first]
    return np.stack([x, y], axis=1)
