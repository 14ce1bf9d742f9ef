"""Fill many polygons into a label image at once: a scan line through the centres of each row of pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Box, Float64, Int64

Labels = npt.NDArray[np.int32]


def spans(counts: Int64) -> tuple[Int64, Int64]:
    """For counts 2, 3: the owner 0 0 1 1 1 and the place within it 0 1 0 1 2."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def runs(xy: Float64, offsets: Int64, box: Box) -> tuple[Int64, Int64, Int64, Int64]:
    """Ring, row, first column and end column of every run of pixels of `box` whose centres lie in a ring.

    Rows and columns count from the corner of the box. Sorted by ring, row and column; some runs may be empty.
    """
    ring = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    x, y = xy[:, 0] - box.x0, xy[:, 1] - box.y0
    next_x, next_y = (_following(values, offsets) for values in (x, y))
    # Row r has its centre at r + 0.5; an edge owns the centres in [low, high), so a shared vertex counts once.
    first = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), 0, box.height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), 0, box.height).astype(np.int64)
    edge, step = spans(last - first)
    row = first[edge] + step
    slope = (next_x - x) / np.where(next_y != y, next_y - y, 1)
    crossing = x[edge] + (row + 0.5 - y[edge]) * slope[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, box.width).astype(np.int64)
    # One number a crossing sorts many times faster than three keys. Closed rings cross every row an even number
    # of times, so neighbours pair up to runs.
    keys = np.sort((ring[edge] * box.height + row) * (box.width + 1) + column)
    line, begin = np.divmod(keys[0::2], box.width + 1)
    owner, row = np.divmod(line, box.height)
    return owner, row, begin, keys[1::2] - line * (box.width + 1)


def _following(values: Float64, offsets: Int64) -> Float64:
    out = np.roll(values, -1)
    out[offsets[1:] - 1] = values[offsets[:-1]]
    return out


def fill(xy_l0: Float64, offsets: Int64, ids: Int64, box_l0: Box) -> Labels:
    """int32 labels of `box_l0`: a pixel gets the id of the ring around its centre, the last of several."""
    out = np.zeros((box_l0.height, box_l0.width), np.int32)
    if not len(ids):
        return out
    ring, row, begin, end = runs(xy_l0, offsets, box_l0)
    run, step = spans(end - begin)
    out[row[run], begin[run] + step] = ids[ring[run]].astype(np.int32)
    return out
