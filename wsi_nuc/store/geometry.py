"""Seam and WKB of many rings at once, without an object per ring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wsi_nuc.rings import Rings, offsets_of
from wsi_nuc.types import Bool, Float64, Int64, UInt8

_HEAD = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4")])
_POLYGON, _POINT_BYTES = 3, 16


def crosses_core(bounds_l0: Float64, core_boxes_l0: Float64) -> Bool:
    """N: whether the polygon reaches beyond its tile's core, so that more than one tile saw it."""
    low = (bounds_l0[:, :2] < core_boxes_l0[:, :2]).any(axis=1)
    return np.asarray(low | (bounds_l0[:, 2:] > core_boxes_l0[:, 2:]).any(axis=1))


def polygons_wkb(rings: Rings) -> tuple[UInt8, Int64]:
    """Little-endian WKB of one-ring polygons, end to end, and the N + 1 byte offsets. Rings are closed here."""
    closed = rings.closed()
    points = closed.ring_lengths
    byte_offsets = offsets_of(_HEAD.itemsize + _POINT_BYTES * points)
    out = np.empty(byte_offsets[-1], np.uint8)
    if not len(points):
        return out, byte_offsets
    head = np.zeros(len(points), _HEAD)
    head["order"], head["type"], head["rings"], head["points"] = 1, _POLYGON, 1, points
    # These views have an element at every byte, so one assignment scatters whole heads or whole points.
    heads = np.ndarray(len(out) - _HEAD.itemsize + 1, f"V{_HEAD.itemsize}", out, strides=(1,))
    slots = np.ndarray(len(out) - _POINT_BYTES + 1, np.complex128, out, strides=(1,))
    heads[byte_offsets[:-1]] = head.view(f"V{_HEAD.itemsize}")
    slots[_places(byte_offsets, closed)] = np.ascontiguousarray(closed.xy, dtype="<f8").view(np.complex128)[:, 0]
    return out, byte_offsets


def rings_of_wkb(data: UInt8, byte_offsets: Int64) -> Rings:
    """The inverse of `polygons_wkb`: every head has 13 bytes, every point 16."""
    lengths = (np.diff(byte_offsets) - _HEAD.itemsize) // _POINT_BYTES - 1
    rings = Rings(np.zeros((0, 2)), offsets_of(lengths))
    slots = np.ndarray(len(data) - _POINT_BYTES + 1, np.complex128, data, strides=(1,))
    return replace(rings, xy=slots[_places(byte_offsets, rings)].view(np.float64).reshape(-1, 2))


def _places(byte_offsets: Int64, rings: Rings) -> Int64:
    """M: the byte at which each vertex begins."""
    shift = byte_offsets[:-1] + _HEAD.itemsize - _POINT_BYTES * rings.starts
    return np.asarray(rings.spread(shift) + _POINT_BYTES * np.arange(rings.offsets[-1]))
