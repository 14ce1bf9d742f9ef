"""Fill many polygons into a label image at once: a scan line through the centres of each row of pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Box, Float64, Int64

Labels = npt.NDArray[np.int32]


def _spans(counts: Int64) -> tuple[Int64, Int64]:
    """For counts 2, 3: the owner 0 0 1 1 1 and the place within it 0 1 0 1 2."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _crossings(xy: Float64, offsets: Int64, rows: tuple[int, int]) -> tuple[Int64, Int64, Float64]:
    """Where the rings cross row centres: ring, row and x of each crossing, sorted by them."""
    ring = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    following = np.roll(xy, -1, axis=0)
    following[offsets[1:] - 1] = xy[offsets[:-1]]
    low, high = np.minimum(xy[:, 1], following[:, 1]), np.maximum(xy[:, 1], following[:, 1])
    # Row r has its centre at r + 0.5; an edge owns the centres in [low, high), so a shared vertex counts once.
    first = np.maximum(np.ceil(low - 0.5), rows[0]).astype(np.int64)
    last = np.minimum(np.ceil(high - 0.5), rows[1]).astype(np.int64)
    edge, step = _spans(np.maximum(last - first, 0))
    row = first[edge] + step
    along = (row + 0.5 - xy[edge, 1]) / (following[edge, 1] - xy[edge, 1])
    x = xy[edge, 0] + along * (following[edge, 0] - xy[edge, 0])
    order = np.lexsort((x, row, ring[edge]))
    return ring[edge][order], row[order], x[order]


def fill(xy_l0: Float64, offsets: Int64, ids: Int64, box_l0: Box) -> Labels:
    """int32 labels of `box_l0`: a pixel gets the id of the ring around its centre, the last of several."""
    out = np.zeros((box_l0.height, box_l0.width), np.int32)
    if not len(ids):
        return out
    ring, row, x = _crossings(xy_l0, offsets, (box_l0.y0, box_l0.y1))
    # Closed rings cross every row an even number of times, so neighbours pair up to inside runs.
    start = np.maximum(np.ceil(x[0::2] - 0.5), box_l0.x0).astype(np.int64)
    stop = np.minimum(np.ceil(x[1::2] - 0.5), box_l0.x1).astype(np.int64)
    run, step = _spans(np.maximum(stop - start, 0))
    columns = start[run] + step - box_l0.x0
    out[row[0::2][run] - box_l0.y0, columns] = ids[ring[0::2][run]].astype(np.int32)
    return out
