"""Labels to masks in crops around their points, and what a mask looks like in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.models.classical.flood import Labels
from wsi_nuc.models.classical.foreground import Scene
from wsi_nuc.models.classical.parameters import CROP_PX
from wsi_nuc.types import Bool, Float64, Int64, UInt8


@dataclass(frozen=True, slots=True)
class Shapes:
    """Of each mask: pixels; the ratio of its axes; mean stain; mean excess over the local threshold."""

    area_px: Float64
    elongation: Float64
    stain: Float64
    excess: Float64


def crops(labels: Labels, xy: Int64, label: Int64, closing_px: int) -> UInt8:
    """N x CROP_PX x CROP_PX (0/1), centred on the points and smoothed; `label`: the label of each."""
    windows = _windows(np.pad(labels, CROP_PX // 2), xy)
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


def shapes(mask: UInt8, scene: Scene, xy: Int64) -> Shapes:
    half = CROP_PX // 2
    flat = mask.reshape(len(mask), -1).astype(np.float64)
    y, x = np.mgrid[:CROP_PX, :CROP_PX].reshape(2, -1).astype(np.float64)
    # Products of whole numbers: exact, in whatever order the matrix product adds them up.
    area, sx, sy, sxx, syy, sxy = (flat @ np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)).T
    area_px = np.maximum(area, 1)
    xx, yy = sxx / area_px - (sx / area_px) ** 2 + 1 / 12, syy / area_px - (sy / area_px) ** 2 + 1 / 12
    half_gap = np.hypot((xx - yy) / 2, sxy / area_px - sx * sy / area_px**2)
    middle = (xx + yy) / 2
    elongation = np.sqrt((middle + half_gap) / np.maximum(middle - half_gap, 1 / 12))
    stain = _mean(np.pad(scene.stain.astype(np.float64), half), mask, xy, area_px)
    # Rounded to whole numbers, so that this sum is exact too.
    excess = _mean(np.pad(np.rint(scene.excess * 1000), half), mask, xy, area_px) / 1000
    return Shapes(area, elongation, stain, excess)


def _mean(padded: Float64, mask: UInt8, xy: Int64, area_px: Float64) -> Float64:
    return np.asarray(np.einsum("nij,nij->n", _windows(padded, xy), mask) / area_px)


def plausible(found: Shapes, least_px: int, most_px: int) -> Bool:
    return np.asarray((found.area_px >= least_px) & (found.area_px <= most_px))
