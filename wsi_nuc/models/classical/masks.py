"""From points to masks: a flood from all points at once, darkest pixels first and a bounded way far.

Masks are cut into crops around their points, and described in numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import SlideError
from wsi_nuc.models.classical.foreground import SOFT, Scene
from wsi_nuc.models.classical.settings import CROP_PX, Parameters
from wsi_nuc.types import Float32, Float64, Int64, UInt8

Labels = npt.NDArray[np.uint16]
EXCESS_UNIT = 0.005


def flood(scene: Scene, xy: Int64, parameters: Parameters) -> Labels:
    """H x W: i + 1 where point i holds the pixel, else 0.

    A watershed would follow a chain of touching nuclei across the tile. Here a label grows by at most
    levels x steps pixels, so that what lies further away cannot matter. Where two labels arrive at once, the later
    point in reading order wins, which depends only on where the points lie relative to each other.
    """
    if len(xy) >= np.iinfo(np.uint16).max:
        raise SlideError(
            f"{len(xy)} points in one tile", "more than can be told apart", "check the image and its mpp"
        )
    labels = np.zeros(scene.inside.shape, np.uint16)
    labels[xy[:, 1], xy[:, 0]] = np.arange(1, len(xy) + 1)
    square, cross = np.ones((3, 3), np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for level in np.linspace(0.95 * SOFT, -1, parameters.levels).astype(np.int64):
        allowed = scene.inside & (scene.order > level)
        for step in range(parameters.steps):
            reached = cv2.dilate(labels, cross if step % 2 else square)
            np.copyto(labels, reached, where=allowed & (labels == 0))
    return labels


@dataclass(frozen=True, slots=True)
class Shapes:
    """What N masks look like, in numbers."""

    area_px: Float64
    """N pixel counts."""
    elongation: Float64
    """N ratios of the long axis to the short one."""
    excess: Float64
    """N means of the excess over the local threshold."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Images of one tile, with a border of zeros half a crop wide."""

    labels: Labels
    """The labels of `flood`."""
    excess: Float32
    """The scene's excess in units of `EXCESS_UNIT`: whole numbers whose sum over the largest nucleus stays below
    2**24, so that float32 adds them exactly in any order."""

    @classmethod
    def of(cls, labels: Labels, scene: Scene) -> Layers:
        half = CROP_PX // 2
        excess = np.rint(np.clip(scene.excess, -20, 20) / EXCESS_UNIT).astype(np.float32)
        return cls(np.pad(labels, half), np.pad(excess, half))


def crops(layers: Layers, xy: Int64, label: Int64, closing_px: int) -> UInt8:
    """N x CROP_PX x CROP_PX masks (0/1), centred on the points and smoothed. `label`: the label of each point."""
    windows = _windows(layers.labels, xy)
    own = windows == label[:, None, None]
    # Pale centres and notches are filled, but never with pixels of another nucleus.
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
    # The second moment of a pixel about its own centre is one twelfth.
    xx, yy = sxx / area_px - (sx / area_px) ** 2 + 1 / 12, syy / area_px - (sy / area_px) ** 2 + 1 / 12
    half_gap = np.hypot((xx - yy) / 2, sxy / area_px - sx * sy / area_px**2)
    middle = (xx + yy) / 2
    elongation = np.sqrt((middle + half_gap) / np.maximum(middle - half_gap, 1 / 12))
    excess = _sums(layers.excess, flat, xy) / area_px
    return Shapes(area, elongation, excess * EXCESS_UNIT)


def _moments() -> Float32:
    """CROP_PX**2 x 6: 1, x, y, x2, y2, xy of each pixel."""
    y, x = np.mgrid[:CROP_PX, :CROP_PX].reshape(2, -1)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1).astype(np.float32)


def _sums(padded: Float32, flat: Float32, xy: Int64) -> Float64:
    values = _windows(padded, xy).reshape(flat.shape)
    return np.asarray(np.einsum("np,np->n", values, flat), np.float64)
