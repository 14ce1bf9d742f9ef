"""Exact rasteriser: a pixel belongs to a polygon if its centre lies inside. No border is added."""

from __future__ import annotations

import numpy as np

from wsi_nuc.types import Float64, Int64


def label_image(xy: Float64, offsets: Int64, shape: tuple[int, int]) -> Int64:
    """Labels 1..N of N disjoint rings on an image, 0 elsewhere.

    `xy` M x 2 vertices in px of the image, ring i is ``xy[offsets[i]:offsets[i + 1]]`` without a closing
    vertex. Each edge adds its signed label at every row that it crosses; a running sum along the rows fills.
    """
    height, width = shape
    if len(offsets) < 2:
        return np.zeros(shape, np.int64)
    following = np.arange(1, len(xy) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    end = xy[following]
    ring = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    twice_area = np.bincount(ring, xy[:, 0] * end[:, 1] - end[:, 0] * xy[:, 1])
    sign = np.where(end[:, 1] > xy[:, 1], -1, 1) * np.where(twice_area > 0, 1, -1)[ring]
    low, high = np.minimum(xy[:, 1], end[:, 1]), np.maximum(xy[:, 1], end[:, 1])
    first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(xy)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (end[:, 0] - xy[:, 0]) / np.where(high > low, end[:, 1] - xy[:, 1], 1)
    x = xy[edge, 0] + slope[edge] * (row + 0.5 - xy[edge, 1])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    steps = np.bincount(
        row * (width + 1) + column, weights=(sign * (ring + 1))[edge], minlength=height * (width + 1)
    )
    labels = np.cumsum(steps.reshape(height, width + 1)[:, :width].astype(np.int64), axis=1)
    return np.asarray(np.clip(labels, 0, len(offsets) - 1))
