"""Polygons to label images: a pixel belongs to a polygon if its centre (i + 0.5) lies inside, holes left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Bool, Float64

Rings = Sequence[Float64]


def fill(rings: Rings, width: int, height: int) -> tuple[int, int, Bool]:
    """Even-odd filling of the rings (first vertex not repeated, or repeated) within width x height.

    Returns x0, y0 and the mask of the box that holds every filled pixel; the mask may be empty.
    """
    low = np.floor(np.min([ring.min(axis=0) for ring in rings], axis=0)).astype(int)
    high = np.ceil(np.max([ring.max(axis=0) for ring in rings], axis=0)).astype(int)
    x0, y0 = (int(v) for v in np.maximum(low, 0))
    x1, y1 = (int(v) for v in np.minimum(high, (width, height)))
    if x1 <= x0 or y1 <= y0:
        return x0, y0, np.zeros((0, 0), bool)
    toggles = np.zeros((y1 - y0, x1 - x0 + 1), np.int32)
    for ring in rings:
        rows, x = _crossings(ring, y0, y1)
        # A pixel is right of the crossing if its centre is: the parity of crossings to its left decides.
        columns = np.clip(np.ceil(x - 0.5).astype(np.int64) - x0, 0, x1 - x0)
        np.add.at(toggles, (rows - y0, columns), 1)
    return x0, y0, (np.cumsum(toggles[:, :-1], axis=1) & 1).astype(bool)


def _crossings(ring: Float64, y0: int, y1: int) -> tuple[npt.NDArray[np.int64], Float64]:
    """Rows in [y0, y1) and x where the ring's edges cross the rows' centre lines."""
    start, end = ring, np.roll(ring, -1, axis=0)
    top = np.minimum(start[:, 1], end[:, 1])
    bottom = np.maximum(start[:, 1], end[:, 1])
    # Half-open in y: a vertex exactly on a centre line is counted by one of its two edges.
    first = np.maximum(np.ceil(top - 0.5).astype(np.int64), y0)
    stop = np.minimum(np.ceil(bottom - 0.5).astype(np.int64), y1)
    count = np.maximum(stop - first, 0)
    edge = np.repeat(np.arange(len(ring)), count)
    rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    a, b = start[edge], end[edge]
    x = a[:, 0] + (rows + 0.5 - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    return rows, np.asarray(x, np.float64)


def rasterise(polygons: Iterable[Rings], width: int, height: int) -> tuple[npt.NDArray[np.int32], int]:
    """Label image, id i + 1 for polygon i, and how many pixels two polygons claimed (the later one has them)."""
    labels = np.zeros((height, width), np.int32)
    contested = 0
    for i, rings in enumerate(polygons):
        x0, y0, mask = fill(rings, width, height)
        window = labels[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
        contested += int((mask & (window > 0)).sum())
        window[mask] = i + 1
    return labels, contested
