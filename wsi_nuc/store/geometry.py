"""Area, centre, seam and WKB of many rings at once, without an object per ring."""

from __future__ import annotations

import numpy as np

from wsi_nuc.types import Bool, Float64, Int64, NucleiTable, UInt8

_HEAD = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4")])
_POLYGON, _POINT_BYTES = 3, 16


def area_and_centre(xy: Float64, offsets: Int64) -> tuple[Float64, Float64]:
    """Unsigned areas (N) and centroids (N x 2) by the shoelace formula; a flat ring has its mean vertex."""
    lengths = np.diff(offsets)
    if not len(lengths):
        return np.zeros(0), np.zeros((0, 2))
    starts, ends = offsets[:-1], offsets[1:]
    # Relative to the first vertex: at 10^5 px from the origin the products would eat the small areas' digits.
    x, y = (xy[:, axis] - np.repeat(xy[starts, axis], lengths) for axis in (0, 1))
    next_x, next_y = (_following(values, ends) for values in (x, y))
    cross = x * next_y - next_x * y
    doubled = np.add.reduceat(cross, starts)
    flat = doubled == 0
    scale = 3.0 * np.where(flat, 1.0, doubled)
    centre = np.column_stack(
        [
            np.where(flat, np.add.reduceat(v, starts) / lengths, np.add.reduceat((v + n) * cross, starts) / scale)
            for v, n in ((x, next_x), (y, next_y))
        ]
    )
    return np.abs(doubled) / 2, centre + xy[starts]


def _following(values: Float64, ends: Int64) -> Float64:
    """Each vertex's successor in rings whose first vertex is at 0."""
    following = np.empty_like(values)
    following[:-1] = values[1:]
    following[ends - 1] = 0.0
    return following


def crosses_core(bounds_l0: Float64, core_boxes_l0: Float64) -> Bool:
    """N bool: the polygon reaches over its tile's core, so more than one tile saw it."""
    low = (bounds_l0[:, :2] < core_boxes_l0[:, :2]).any(axis=1)
    return np.asarray(low | (bounds_l0[:, 2:] > core_boxes_l0[:, 2:]).any(axis=1))


def polygons_wkb(xy: Float64, offsets: Int64) -> tuple[UInt8, Int64]:
    """Little-endian WKB of one-ring polygons, end to end, and the N + 1 byte offsets. Rings get closed."""
    points = np.diff(offsets) + 1
    ends = np.cumsum(_HEAD.itemsize + _POINT_BYTES * points)
    byte_offsets = np.concatenate([[0], ends]).astype(np.int64)
    out = np.empty(byte_offsets[-1], np.uint8)
    if not len(points):
        return out, byte_offsets
    head = np.zeros(len(points), _HEAD)
    head["order"], head["type"], head["rings"], head["points"] = 1, _POLYGON, 1, points
    # Views that begin at every byte: one assignment then scatters whole heads and whole points.
    heads = np.ndarray(len(out) - _HEAD.itemsize + 1, f"V{_HEAD.itemsize}", out, strides=(1,))
    slots = np.ndarray(len(out) - _POINT_BYTES + 1, np.complex128, out, strides=(1,))
    heads[byte_offsets[:-1]] = head.view(f"V{_HEAD.itemsize}")
    pairs = np.ascontiguousarray(xy, dtype="<f8").view(np.complex128)[:, 0]
    shift = byte_offsets[:-1] + _HEAD.itemsize - _POINT_BYTES * offsets[:-1]
    places = np.arange(0, _POINT_BYTES * len(pairs), _POINT_BYTES)
    places += np.repeat(shift, points - 1)
    slots[places] = pairs
    slots[ends - _POINT_BYTES] = pairs[offsets[:-1]]
    return out, byte_offsets


def rows(table: NucleiTable, start: int, stop: int) -> NucleiTable:
    """A run of rows without copying them."""
    first, last = int(table.offsets[start]), int(table.offsets[stop])
    return NucleiTable(
        xy=table.xy[first:last],
        offsets=table.offsets[start : stop + 1] - first,
        prompt_xy=table.prompt_xy[start:stop],
        score=table.score[start:stop],
        prompt_score=table.prompt_score[start:stop],
        predicted_iou=table.predicted_iou[start:stop],
        class_probs=table.class_probs[start:stop],
        tile=table.tile[start:stop],
    )
