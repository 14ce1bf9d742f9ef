"""Rings: many polygons without holes in two arrays, and every operation on them, each written once.

A ring is closed implicitly: its first vertex is not repeated. A record with more columns of one entry per ring
derives from `Rings`, which selects and joins them all. Frames belong to the records, so nothing here names one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]
Geometries = npt.NDArray[np.object_]


class Box(Protocol):
    """A box of whole pixels, such as `types.Box`, which stands above this module."""

    @property
    def x0(self) -> int: ...
    @property
    def y0(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def offsets_of(lengths: npt.ArrayLike) -> Int64:
    """N + 1: where each of N rows of these lengths begins if they lie end to end, then where they end."""
    lengths = np.asarray(lengths, np.int64)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(starts: Int64, counts: Int64) -> Int64:
    """starts[0], starts[0] + 1, ... (counts[0] numbers), then the same from starts[1], and so on."""
    ends = offsets_of(counts)
    out = np.repeat(starts - ends[:-1], counts)
    out += np.arange(ends[-1])
    return out


def spans(counts: Int64) -> tuple[Int64, Int64]:
    """For counts 2, 3: the owner 0 0 1 1 1 and the place within it 0 1 0 1 2."""
    return np.repeat(np.arange(len(counts)), counts), ranges(np.zeros(len(counts), np.int64), counts)


def chunks(counts: Int64, at_once: int) -> Iterator[tuple[int, int]]:
    """Stretches of rows whose counts add up to about `at_once`, to bound temporary arrays; no row is split."""
    ends = offsets_of(counts)
    start = 0
    while start < len(counts):
        stop = max(int(np.searchsorted(ends, ends[start] + at_once, side="right")) - 1, start + 1)
        yield start, stop
        start = stop


@dataclass(frozen=True, slots=True)
class Rings:
    """N rings, each of one vertex or more; those with an area have three or more."""

    xy: Float64
    """M x 2: the vertices of all rings, one ring after the other."""
    offsets: Int64
    """N + 1: ring i is ``xy[offsets[i]:offsets[i + 1]]``."""

    @staticmethod
    def of(rings: Sequence[Float64]) -> Rings:
        """From separate rings, each n x 2."""
        xy = np.concatenate([np.zeros((0, 2)), *rings])
        return Rings(xy, offsets_of(np.fromiter(map(len, rings), np.int64, len(rings))))

    @staticmethod
    def of_polygons(polygons: Geometries) -> Rings:
        """The outer rings of shapely polygons, which repeat the first vertex of each at its end."""
        import shapely

        outer = shapely.get_exterior_ring(polygons)
        closed = offsets_of(shapely.get_num_coordinates(outer))
        inner = np.ones(closed[-1], np.bool_)
        inner[closed[1:] - 1] = False
        return Rings(shapely.get_coordinates(outer)[inner], offsets_of(np.maximum(np.diff(closed) - 1, 0)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def ring_lengths(self) -> Int64:
        """N: vertices of each ring."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def starts(self) -> Int64:
        """N: the first vertex of each ring."""
        return self.offsets[:-1]

    @property
    def successors(self) -> Int64:
        """M: the vertex that follows each vertex on its ring."""
        after = np.arange(1, len(self.xy) + 1)
        after[self.offsets[1:] - 1] = self.starts
        return after

    def ring(self, row: int) -> Float64:
        return self.xy[self.offsets[row] : self.offsets[row + 1]]

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """M values: that of its ring for each vertex."""
        return np.repeat(values, self.ring_lengths, axis=0)

    def select(self, rows: npt.NDArray[Any]) -> Self:
        """The given rows (indices or a mask), in the given order."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        lengths = self.ring_lengths[rows]
        # `take` copies whole rows, many times faster than an index does.
        xy = self.xy.take(ranges(self.starts[rows], lengths), axis=0)
        columns = {name: values.take(rows, axis=0) for name, values in self._columns().items()}
        return type(self)(xy=xy, offsets=offsets_of(lengths), **columns)

    def between(self, start: int, stop: int) -> Self:
        """A run of rows without copying them."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - first
        columns = {name: values[start:stop] for name, values in self._columns().items()}
        return type(self)(xy=self.xy[first:last], offsets=offsets, **columns)

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("xy", "offsets")}

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows in order, of at least one part."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__
        }
        return cls(**{**columns, "offsets": offsets_of(np.concatenate([part.ring_lengths for part in parts]))})

    def bounds(self) -> Float64:
        """N x 4: x0, y0, x1, y1 of each ring."""
        if not len(self):
            return np.zeros((0, 4))
        low = np.minimum.reduceat(self.xy, self.starts, axis=0)
        return np.hstack([low, np.maximum.reduceat(self.xy, self.starts, axis=0)])

    def edges(self, about: Float64 | None = None) -> Edges:
        """Relative to `about` (N x 2), if given, instead of to the first vertex of each ring."""
        origin = self.xy[self.starts] if about is None else about
        x, y = (self.xy[:, axis] - np.repeat(origin[:, axis], self.ring_lengths) for axis in (0, 1))
        next_x, next_y = (following(values, self.offsets) for values in (x, y))
        return Edges(x, y, next_x, next_y, self.offsets, origin)

    def signed_areas(self, about: Float64 | None = None) -> Float64:
        """N: positive where a ring runs anticlockwise as seen with y up. `about`: see `edges`."""
        if not len(self):
            return np.zeros(0)
        edges = self.edges(about)
        return edges.sum(edges.cross) / 2

    def areas_and_centres(self) -> tuple[Float64, Float64]:
        """Unsigned areas (N) and centroids (N x 2); a flat ring has its mean vertex."""
        if not len(self):
            return np.zeros(0), np.zeros((0, 2))
        edges = self.edges()
        doubled = edges.sum(edges.cross)
        flat = doubled == 0
        scale = 3.0 * np.where(flat, 1.0, doubled)
        sides = ((edges.x, edges.next_x), (edges.y, edges.next_y))
        centre = [
            np.where(flat, edges.sum(v) / self.ring_lengths, edges.sum((v + n) * edges.cross) / scale)
            for v, n in sides
        ]
        return np.abs(doubled) / 2, np.column_stack(centre) + edges.origin

    def closed(self) -> Rings:
        """The same rings with their first vertices repeated at their ends, as files want them."""
        ends = offsets_of(self.ring_lengths + 1)
        vertices = ranges(self.starts, self.ring_lengths + 1)
        vertices[ends[1:] - 1] = self.starts
        return Rings(self.xy.take(vertices, axis=0), ends)

    def linear_rings(self) -> Geometries:
        """N shapely rings."""
        import shapely

        owner = self.spread(np.arange(len(self)))
        return np.asarray(shapely.linearrings(self.xy, indices=owner) if len(self) else [], object)

    def polygons(self) -> Geometries:
        """N shapely polygons."""
        import shapely

        return np.asarray(shapely.polygons(self.linear_rings()) if len(self) else [], object)

    def covered(self, box: Box, group: Int64 | None = None) -> tuple[Int64, Int64]:
        """Every pixel of `box` whose centre lies in a ring, as an index into the flat image, and that ring.

        Sorted by ring, row and column. `group`: N, ascending; rings of one number are filled together by the rule
        of even and odd, so that a ring inside another one is a hole, and the number is given instead of the ring.
        """
        width, height = box.width, box.height
        group = np.arange(len(self)) if group is None else group
        x, y = self.xy[:, 0] - box.x0, self.xy[:, 1] - box.y0
        next_x, next_y = (following(values, self.offsets) for values in (x, y))
        # Row r has its centre at r + 0.5; an edge owns the centres in [low, high): a shared vertex counts once.
        first = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), 0, height).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), 0, height).astype(np.int64)
        edge, step = spans(last - first)
        row = first[edge] + step
        slope = (next_x - x) / np.where(next_y != y, next_y - y, 1)
        crossing = x[edge] + (row + 0.5 - y[edge]) * slope[edge]
        column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
        # One number per crossing sorts many times faster than three keys. Closed rings cross every row an even
        # number of times, so neighbours pair up to runs of pixels.
        keys = np.sort((self.spread(group)[edge] * height + row) * (width + 1) + column)
        line, begin = np.divmod(keys[0::2], width + 1)
        run, step = spans(keys[1::2] - keys[0::2])
        owner, row = np.divmod(line, max(1, height))
        return row[run] * width + begin[run] + step, owner[run]

    def fill(self, ids: npt.NDArray[Any], box: Box, group: Int64 | None = None) -> Labels:
        """Labels of `box`: a pixel gets the id of the ring (or group, see `covered`) around its centre, of several
        the last one, and 0 outside all."""
        out = np.zeros(box.height * box.width, np.int32)
        pixel, owner = self.covered(box, group)
        out[pixel] = ids.astype(np.int32)[owner]
        return out.reshape(box.height, box.width)


@dataclass(frozen=True)
class Edges:
    """The M edges of N rings, each from a vertex to the next one.

    Coordinates are relative to the `origin` of their ring: at 10^5 px from the corner of the slide the products
    would eat the digits of small areas.
    """

    x: Float64
    y: Float64
    next_x: Float64
    next_y: Float64
    offsets: Int64
    """N + 1, as of the rings."""
    origin: Float64
    """N x 2."""

    @property
    def starts(self) -> Int64:
        return self.offsets[:-1]

    @cached_property
    def ring(self) -> Int64:
        """M: the ring that each edge belongs to."""
        return np.repeat(np.arange(len(self.starts)), np.diff(self.offsets))

    @cached_property
    def length(self) -> Float64:
        return np.asarray(np.hypot(self.next_x - self.x, self.next_y - self.y))

    @cached_property
    def cross(self) -> Float64:
        """M: twice the signed area of the triangle from the origin over each edge, the terms of the shoelace."""
        return np.asarray(self.x * self.next_y - self.next_x * self.y)

    def sum(self, values: npt.NDArray[Any]) -> Float64:
        """N: the values of each ring's edges added up."""
        return np.asarray(np.add.reduceat(values, self.starts))


def following(values: Float64, offsets: Int64) -> Float64:
    """Each vertex's successor on its ring."""
    out = np.empty_like(values)
    out[:-1] = values[1:]
    out[offsets[1:] - 1] = values[offsets[:-1]]
    return out


def largest_polygons(geometries: Any) -> Geometries:
    """Of each shapely geometry the largest polygon, the first one of several; None where none has an area."""
    import shapely

    parts, owner = shapely.get_parts(np.asarray(geometries, object), return_index=True)
    parts, whole = shapely.get_parts(parts, return_index=True)
    owner, area = owner[whole], shapely.area(parts)
    order = np.lexsort((-area, owner))
    solid: Bool = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (area > 0)
    order = order[solid[order]]
    out = np.full(len(geometries), None, object)
    rows, first = np.unique(owner[order], return_index=True)
    out[rows] = parts[order[first]]
    return out
