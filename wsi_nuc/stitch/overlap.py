"""Which boxes overlap, and the areas of rings and of their intersections, all in arrays.

Boxes are compared by a sweep down vertical strips. Areas need no geometry objects: the areas under the edges of a
ring, each with the sign of the edge's direction in x, add up to plus or minus the ring's area. So the common area
of A and B is a sum over the pairs of an edge of A and an edge of B: of the signed integral of the lower of the two
lines over their common range of x. This is a closed form for each pair, exact to rounding. It cannot fail on an
invalid ring, for which it counts winding numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsi_nuc.rings import Rings, chunks, offsets_of, ranges
from wsi_nuc.types import Bool, Float64, Int64

_PAIRS_AT_ONCE = 1 << 21
_EDGE_PAIRS_AT_ONCE = 1 << 20


def overlapping(bounds: Float64) -> Iterator[tuple[Int64, Int64]]:
    """All pairs of boxes (N x 4: x0, y0, x1, y1) that share some area, each pair once, in chunks."""
    if len(bounds) < 2:
        return
    x0, y0, x1, y1 = np.ascontiguousarray(bounds.T)
    width = max(float((x1 - x0).mean()), 1e-6) * 2.5
    first, last = (((side - x0.min()) // width).astype(np.int64) for side in (x0, x1))
    # From top to bottom, then stable by strip.
    box = np.argsort(y0, kind="stable")
    box, strip = _spread(box, first[box], last[box])
    order = np.argsort(strip, kind="stable")
    box, strip = box[order], strip[order]
    reaches = _followers(bounds, box, strip)
    for start, stop in chunks(reaches, _PAIRS_AT_ONCE):
        upper = np.repeat(np.arange(start, stop), reaches[start:stop])
        lower = ranges(np.arange(start, stop) + 1, reaches[start:stop])
        a, b = box[upper], box[lower]
        # Two wide boxes may meet in several strips; only the first strip of both reports them.
        share = np.maximum(first[a], first[b]) == strip[upper]
        share &= (x0[a] < x1[b]) & (x0[b] < x1[a]) & (y0[a] < y1[b]) & (y0[b] < y1[a])
        yield a[share], b[share]


def _spread(box: Int64, first: Int64, last: Int64) -> tuple[Int64, Int64]:
    """Every box once for each strip that it lies in."""
    count = last - first + 1
    return np.repeat(box, count), ranges(first, count)


def _followers(bounds: Float64, box: Int64, strip: Int64) -> Int64:
    """For each entry, how many of the next entries in its strip start above its bottom."""
    low, high = bounds[:, 1].min(), bounds[:, 3].max()
    lift = strip * (2 * (high - low) + 1)
    tops = bounds[box, 1] - low + lift
    bottoms = bounds[box, 3] - low + lift
    # Rounding of the lifted keys must not lose a pair; the caller compares the true boxes again.
    stop = np.searchsorted(tops, bottoms + 1e-3, side="left")
    followers: Int64 = np.maximum(stop - np.arange(len(box)) - 1, 0)
    return followers


@dataclass(frozen=True, slots=True)
class _Edges:
    """The edges of all rings, each seen from left to right."""

    x_left: Float64
    x_right: Float64
    y_left: Float64
    slope: Float64
    sign: Float64
    """1 if the ring runs from left to right here, -1 if from right to left, 0 if the edge is vertical."""

    @classmethod
    def of(cls, rings: Rings) -> _Edges:
        start, end = rings.xy, rings.xy[rings.successors]
        run = end[:, 0] - start[:, 0]
        forward = run >= 0
        rise = np.divide(end[:, 1] - start[:, 1], run, out=np.zeros(len(run)), where=run != 0)
        return cls(
            np.where(forward, start[:, 0], end[:, 0]),
            np.where(forward, end[:, 0], start[:, 0]),
            np.where(forward, start[:, 1], end[:, 1]),
            rise,
            np.sign(run),
        )

    def height(self, edge: Int64, x: Float64) -> Float64:
        height: Float64 = self.y_left[edge] + self.slope[edge] * (x - self.x_left[edge])
        return height


def intersection_areas(rings: Rings, a: Int64, b: Int64) -> Float64:
    """Area that ring a[k] and ring b[k] have in common, for each k."""
    if not len(a):
        return np.zeros(0)
    edges, bounds = _Edges.of(rings), rings.bounds()
    floor = np.minimum(bounds[a, 1], bounds[b, 1])
    left, right = np.maximum(bounds[a, 0], bounds[b, 0]), np.minimum(bounds[a, 2], bounds[b, 2])
    areas = np.zeros(len(a))
    for start, stop in chunks(rings.ring_lengths[a] * rings.ring_lengths[b], _EDGE_PAIRS_AT_ONCE):
        part = slice(start, stop)
        pair, edge_a, edge_b = _edge_pairs(rings, edges, (a[part], b[part]), (left[part], right[part]))
        common = _common(edges, edge_a, edge_b, floor[part][pair])
        areas[part] = np.bincount(pair, common, minlength=stop - start)
    return np.abs(areas)


def _edge_pairs(
    rings: Rings, edges: _Edges, pairs: tuple[Int64, Int64], window: tuple[Float64, Float64]
) -> tuple[Int64, Int64, Int64]:
    """All edges of two rings that share a range of x: pair, edge of its first ring, edge of its second ring."""
    (pair_a, edge_a), (pair_b, edge_b) = (_edges_within(rings, edges, ring, window) for ring in pairs)
    per_pair = np.bincount(pair_b, minlength=len(pairs[0]))
    count = per_pair[pair_a]
    row_a = np.repeat(np.arange(len(edge_a)), count)
    row_b = ranges(offsets_of(per_pair)[pair_a], count)
    meet = edges.x_left[edge_a][row_a] < edges.x_right[edge_b][row_b]
    meet &= edges.x_left[edge_b][row_b] < edges.x_right[edge_a][row_a]
    row_a, row_b = row_a[meet], row_b[meet]
    return pair_a[row_a], edge_a[row_a], edge_b[row_b]


def _edges_within(
    rings: Rings, edges: _Edges, ring: Int64, window: tuple[Float64, Float64]
) -> tuple[Int64, Int64]:
    """Pair and edge, for all edges of the rings that are not vertical and reach into the pair's window of x."""
    count = rings.ring_lengths[ring]
    pair = np.repeat(np.arange(len(ring)), count)
    edge = ranges(rings.starts[ring], count)
    useful = (edges.x_right[edge] > window[0][pair]) & (edges.x_left[edge] < window[1][pair])
    useful &= edges.sign[edge] != 0
    return pair[useful], edge[useful]


def _common(edges: _Edges, a: Int64, b: Int64, floor: Float64) -> Float64:
    """Signed integral, over the common range of x, of the lower line above `floor`."""
    left = np.maximum(edges.x_left[a], edges.x_left[b])
    right = np.minimum(edges.x_right[a], edges.x_right[b])
    b_left, b_right = edges.height(b, left), edges.height(b, right)
    d_left, d_right = edges.height(a, left) - b_left, edges.height(a, right) - b_right
    below = np.minimum(d_left, 0) + np.minimum(d_right, 0)
    spread = np.abs(d_left) + np.abs(d_right)
    # min(a, b) = b + min(a - b, 0); where the lines cross, only a triangle of the difference is negative.
    lower = below * np.divide(-below, spread, out=np.zeros(len(a)), where=spread > 0)
    sign = edges.sign[a] * edges.sign[b]
    common: Float64 = sign * (right - left) * ((b_left + b_right) / 2 - floor + lower / 2)
    return common


@dataclass(frozen=True, slots=True)
class Octagons:
    """The smallest octagon (sides at 0, 45, 90, 135 degrees) around each of N rings."""

    low: tuple[Float64, ...]
    """The least x, y, x + y and x - y."""
    high: tuple[Float64, ...]

    @classmethod
    def of(cls, rings: Rings, bounds: Float64) -> Octagons:
        x0, y0, x1, y1 = bounds.T
        if not len(rings):
            return cls((x0, y0, x0, y0), (x1, y1, x1, y1))
        x, y = rings.xy.T
        slants = (x + y, x - y)
        low, high = ([end.reduceat(side, rings.starts) for side in slants] for end in (np.minimum, np.maximum))
        return cls((x0, y0, *low), (x1, y1, *high))

    def meet(self, a: Int64, b: Int64) -> Bool:
        """Whether the octagons of pairs whose boxes share area do so too."""
        meet = np.ones(len(a), np.bool_)
        for low, high in zip(self.low[2:], self.high[2:], strict=True):
            meet &= (low[a] < high[b]) & (low[b] < high[a])
        return meet

    def unions(self, a: Int64, b: Int64) -> Float64:
        """Area of the smallest octagon around ring a[k] and ring b[k] together.

        The union of the two is not larger. For outlines as round as nuclei, this nearly always proves a double.
        """
        x0, y0, s0, d0 = (np.minimum(side[a], side[b]) for side in self.low)
        x1, y1, s1, d1 = (np.maximum(side[a], side[b]) for side in self.high)
        corners = (s0 - x0 - y0) ** 2 + (x1 + y1 - s1) ** 2 + (d0 - x0 + y1) ** 2 + (x1 - y0 - d1) ** 2
        unions: Float64 = (x1 - x0) * (y1 - y0) - corners / 2
        return unions
