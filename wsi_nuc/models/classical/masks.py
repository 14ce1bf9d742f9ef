"""Labels to masks in crops around their points, and what a mask looks like in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.models.classical.flood import Labels
from wsi_nuc.models.classical.foreground import Scene
from wsi_nuc.models.classical.settings import CROP_PX
from wsi_nuc.types import Bool, Float32, Float64, Int64, UInt8

EXCESS_UNIT = 0.005


@dataclass(frozen=True, slots=True)
class Shapes:
    """Of each mask: pixels; the ratio of its axes; mean excess over the local threshold."""

    area_px: Float64
    elongation: Float64
    excess: Float64


@dataclass(frozen=True, slots=True)
class Layers:
    """Images of one tile with half a crop of zeros around. Their values are whole numbers whose
    sum over the largest nucleus stays below 2**24: float32 adds them exactly, in whatever order."""

    labels: Labels
    excess: Float32

    @classmethod
    def of(cls, labels: Labels, scene: Scene) -> Layers:
        half = CROP_PX // 2
        excess = np.rint(np.clip(scene.excess, -20, 20) / EXCESS_UNIT).astype(np.float32)
        return cls(np.pad(labels, half), np.pad(excess, half))


def crops(layers: Layers, xy: Int64, label: Int64, closing_px: int) -> UInt8:
    """N x CROP_PX x CROP_PX (0/1), centred on the points and smoothed; `label`: the label of each."""
    windows = _windows(layers.labels, xy)
    own = windows == label[:, None, None]
    # Pale centres and notches are filled, but never with what another nucleus holds.
    free = own | (windows == 0)
    closed = _morphed(own.astype(np.uint8), cv2.MORPH_CLOSE, cv2.MORPH_ELLIPSE, closing_px)
    return _morphed(closed * free, cv2.MORPH_OPEN, cv2.MORPH_CROSS, 1)


def _windows(padded: npt.NDArray[Any], xy: Int64) -> npt.NDArray[Any]:
    views = np.lib.stride_tricks.sliding_window_view(padded, (CROP_PX, CROP_PX))
    return np.asarray(views[xy[:, 1], xy[:, 0]])


def _morphed(mask: UInt8, operation: int, shape: int, radius: int) -> UInt8:
    """All crops lie in one tall image; the empty rim of each keeps them apart."""
    kernel = cv2.getStructuringElement(shape, (2 * radius + 1, 2 * radius + 1))
    tall = cv2.morphologyEx(mask.reshape(-1, CROP_PX), operation, kernel)
    return np.asarray(tall, np.uint8).reshape(mask.shape)


def shapes(mask: UInt8, layers: Layers, xy: Int64) -> Shapes:
    flat = mask.reshape(len(mask), -1).astype(np.float32)
    sums = (flat @ _moments()).astype(np.float64)
    area, sx, sy, sxx, syy, sxy = sums.T
    area_px = np.maximum(area, 1)
    # A twelfth is the second moment of a pixel about its own middle.
    xx, yy = sxx / area_px - (sx / area_px) ** 2 + 1 / 12, syy / area_px - (sy / area_px) ** 2 + 1 / 12
    half_gap = np.hypot((xx - yy) / 2, sxy / area_px - sx * sy / area_px**2)
    middle = (xx + yy) / 2
    elongation = np.sqrt((middle + half_gap) / np.maximum(middle - half_gap, 1 / 12))
    excess = _sums(layers.excess, flat, xy) / area_px
    return Shapes(area, elongation, excess * EXCESS_UNIT)


def _moments() -> Float32:
    """CROP_PX**2 x 6: one, x, y, x2, y2, xy of each pixel."""
    y, x = np.mgrid[:CROP_PX, :CROP_PX].reshape(2, -1)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1).astype(np.float32)


def _sums(padded: Float32, flat: Float32, xy: Int64) -> Float64:
    values = _windows(padded, xy).reshape(flat.shape)
    return np.asarray(np.einsum("np,np->n", values, flat), np.float64)


def plausible(found: Shapes, least_px: int, most_px: int) -> Bool:
    return np.asarray((found.area_px >= least_px) & (found.area_px <= most_px))
