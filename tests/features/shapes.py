"""Outlines for the tests of features, and an outline as a plain raster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsi_nuc.rings import Rings
from wsi_nuc.types import Box, Float64, Int64


def blobs(count: int, seed: int = 0, vertices: int = 40) -> tuple[Float64, Int64]:
    """Smooth bent ellipses of 3 to 9 um around the origin, in micrometres; some have a dent."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    rings = []
    for _ in range(count):
        long, flat, dent = rng.uniform(2, 4.5), rng.uniform(0.45, 1), rng.uniform(0, 0.35)
        radius = 1 - dent * np.exp(-((angle - np.pi) ** 2) / 0.5)
        xy = np.column_stack([long * radius * np.cos(angle), long * flat * radius * np.sin(angle)])
        rings.append(turned(xy, rng.uniform(0, np.pi)))
    offsets = np.arange(count + 1) * vertices
    return np.concatenate(rings), offsets.astype(np.int64)


def turned(xy: Float64, angle: float) -> Float64:
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(xy @ np.array([[c, s], [-s, c]]))


def raster(ring_um: Float64, um_per_px: float) -> npt.NDArray[np.int32]:
    """The ring as a small label image with a free rim."""
    xy = (ring_um - ring_um.min(axis=0)) / um_per_px + 2
    edge = int(np.ceil(xy.max())) + 3
    return Rings.of([xy]).fill(np.array([1]), Box(0, 0, edge, edge))
