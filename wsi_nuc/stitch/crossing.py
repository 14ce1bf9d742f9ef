"""Where two outlines cross, and what the one leaves of the other if they cross at two places, all in arrays.

Nearly all outlines that overlap do. What is left then runs along the one outline outside of the other, and along
the other one inside of it. All its vertices but the two crossings are vertices of the two outlines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.rings import Rings, chunks, following, offsets_of, ranges, spans
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
    next_x: Float64
    next_y: Float64

    @classmethod
    def of(cls, rings: Rings) -> _Edges:
        x, y = np.ascontiguousarray(rings.xy.T)
        return cls(x, y, following(x, rings.offsets), following(y, rings.offsets))

    def low(self) -> tuple[Float64, Float64]:
        """The smaller x and the smaller y of the two ends."""
        return np.minimum(self.x, self.next_x), np.minimum(self.y, self.next_y)

    def high(self) -> tuple[Float64, Float64]:
        return np.maximum(self.x, self.next_x), np.maximum(self.y, self.next_y)

    def way(self, edge: Int64) -> tuple[Float64, Float64]:
        """From the vertex to its successor."""
        return self.next_x[edge] - self.x[edge], self.next_y[edge] - self.y[edge]


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


def meetings(rings: Rings, bounds: Float64, anticlockwise: Bool, pairs: tuple[Int64, Int64]) -> Meetings:
    """Of ring first[k] and ring second[k], for each k. A pair is judged by its own vertices alone.

    `bounds` and `anticlockwise` (as seen with y up) are those of the N rings.
    """
    first, second = pairs
    if not len(first):
        return Meetings(np.zeros(0, np.bool_), np.zeros(0, np.bool_), Rings.of([]))
    edges = _Edges.of(rings)
    low = np.maximum(bounds[first, :2], bounds[second, :2])
    high = np.minimum(bounds[first, 2:], bounds[second, 2:])
    crossings, touching = _crossings(rings, edges, pairs, (low, high))
    count = np.bincount(crossings.pair, minlength=len(first))
    twice = (count == 2) & ~touching
    rows = np.flatnonzero(twice[crossings.pair])
    # At a crossing, the first ring goes into the second one or out of it; once each, unless a ring is invalid.
    enters = crossings.left[rows] != anticlockwise[second[crossings.pair[rows]]]
    regular = enters[0::2] != enters[1::2]
    twice[crossings.pair[rows[0::2][~regular]]] = False
    rows, enters = rows[np.repeat(regular, 2)], enters[np.repeat(regular, 2)]
    into, out = crossings.at(rows[enters]), crossings.at(rows[~enters])
    ends = (first[into.pair], second[into.pair])
    rest = _along_both(rings, edges, ends, into, out, into.left == anticlockwise[ends[0]])
    return Meetings((count == 0) & ~touching, twice, rest)


def _crossings(
    rings: Rings, edges: _Edges, pairs: tuple[Int64, Int64], boxes: tuple[Float64, Float64]
) -> tuple[_Crossings, Bool]:
    """All crossings, and for each pair whether its rings touch in a vertex or along an edge. `boxes`: the low and
    the high corner of what the boxes of each pair have in common."""
    touching, parts, extent = np.zeros(len(pairs[0]), np.bool_), [], (edges.low(), edges.high())
    for start, stop in chunks(rings.ring_lengths[pairs[0]] * rings.ring_lengths[pairs[1]], _EDGE_PAIRS_AT_ONCE):
        part = slice(start, stop)
        box = (boxes[0][part], boxes[1][part])
        pair, a, b = _near(rings, extent, (pairs[0][part], pairs[1][part]), box)
        # On which side of the one edge the ends of the other lie. Exact for coordinates in multiples of 1/64 px.
        x, y = edges.x[b] - edges.x[a], edges.y[b] - edges.y[a]
        (run_a, rise_a), (run_b, rise_b) = edges.way(a), edges.way(b)
        of_a, of_b = x * rise_b - y * run_b, x * rise_a - y * run_a
        side_b = -of_b * (run_a * (y + rise_b) - rise_a * (x + run_b))
        side_a = of_a * (run_b * (rise_a - y) - rise_b * (run_a - x))
        cross = (side_a < 0) & (side_b < 0)
        touching[start + pair[(side_a <= 0) & (side_b <= 0) & ~cross]] = True
        rows = np.flatnonzero(cross)
        turn = (run_a * rise_b - rise_a * run_b)[rows]
        along = (of_a[rows] / turn, of_b[rows] / turn)
        parts.append(_Crossings(start + pair[rows], a[rows], b[rows], along, turn > 0))
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
    rings: Rings,
    extent: tuple[tuple[Float64, Float64], tuple[Float64, Float64]],
    pairs: tuple[Int64, Int64],
    box: tuple[Float64, Float64],
) -> tuple[Int64, Int64, Int64]:
    """Pair, edge of its first ring, edge of its second ring, wherever the boxes of the edges meet."""
    (pair_a, edge_a), (pair_b, edge_b) = (_within(rings, extent, ring, box) for ring in pairs)
    per_pair = np.bincount(pair_b, minlength=len(pairs[0]))
    count = per_pair[pair_a]
    a, b = np.repeat(edge_a, count), edge_b[ranges(offsets_of(per_pair)[pair_a], count)]
    pair = np.repeat(pair_a, count)
    for low, high in zip(*extent, strict=True):
        meet = np.flatnonzero((low[a] <= high[b]) & (low[b] <= high[a]))
        pair, a, b = pair[meet], a[meet], b[meet]
    return pair, a, b


def _within(
    rings: Rings,
    extent: tuple[tuple[Float64, Float64], tuple[Float64, Float64]],
    ring: Int64,
    box: tuple[Float64, Float64],
) -> tuple[Int64, Int64]:
    """Pair and edge, for the edges of the rings that reach into the pair's box."""
    count = rings.ring_lengths[ring]
    pair, edge = np.repeat(np.arange(len(ring)), count), ranges(rings.starts[ring], count)
    for low, high, begin, end in zip(*extent, box[0].T, box[1].T, strict=True):
        reaches = np.flatnonzero((low[edge] <= end[pair]) & (high[edge] >= begin[pair]))
        pair, edge = pair[reaches], edge[reaches]
    return pair, edge


def _along_both(
    rings: Rings, edges: _Edges, pairs: tuple[Int64, Int64], into: _Crossings, out: _Crossings, forward: Bool
) -> Rings:
    """From where each first ring leaves the second one along itself to where it enters, and back along the second.

    `forward`: whether that way back follows the order of the second ring's vertices.
    """
    sizes, starts = ([values[ring] for ring in pairs] for values in (rings.ring_lengths, rings.starts))
    step = np.where(forward, 1, -1)
    # If both crossings lie on one edge, the way is a part of this edge, or all vertices.
    all_first = (into.first == out.first) & (into.along[0] < out.along[0])
    all_second = (into.second == out.second) & ((into.along[1] > out.along[1]) == forward)
    count_first = np.where(all_first, sizes[0], (into.first - out.first) % sizes[0])
    count_second = np.where(all_second, sizes[1], (step * (out.second - into.second)) % sizes[1])
    offsets = offsets_of(count_first + count_second + 2)
    leave, enter = offsets[:-1], offsets[:-1] + 1 + count_first
    vertices = np.zeros(offsets[-1], np.int64)
    ways = (
        (leave + 1, count_first, out.first + 1 - starts[0], np.ones(len(step), np.int64)),
        (enter + 1, count_second, into.second + forward - starts[1], step),
    )
    for start, size, (row, count, begin, each) in zip(starts, sizes, ways, strict=True):
        pair, place = spans(count)
        vertices[row[pair] + place] = start[pair] + (begin[pair] + each[pair] * place) % size[pair]
    # `take` copies whole rows, many times faster than an index does.
    xy = rings.xy.take(vertices, axis=0)
    xy[leave], xy[enter] = _places(edges, out), _places(edges, into)
    return Rings(xy, offsets)


def _places(edges: _Edges, at: _Crossings) -> Float64:
    run, rise = edges.way(at.first)
    return np.stack([edges.x[at.first] + at.along[0] * run, edges.y[at.first] + at.along[0] * rise], axis=1)
