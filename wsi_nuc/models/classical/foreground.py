"""What is nucleus and what is not, judged against the surroundings within a few cells."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsi_nuc.models.classical.settings import Parameters
from wsi_nuc.models.classical.stain import UInt16, blurred, haematoxylin
from wsi_nuc.types import Bool, Float64, UInt8

SOFT = 4000  # the soft foreground is 0..SOFT, half of it at the threshold


@dataclass(frozen=True, slots=True)
class Scene:
    """Of one tile, all H x W: `soft`, the foreground 0..SOFT; `order` the same, smoothed, which the flood
    follows; `inside`, what may become a nucleus; `excess`, stain over the local threshold in local contrasts."""

    soft: UInt16
    order: UInt16
    inside: Bool
    excess: Float64


def scene_of(rgb: UInt8, parameters: Parameters) -> Scene:
    stain = haematoxylin(rgb, parameters)
    threshold, contrast = local_threshold(stain, parameters)
    excess = (stain - threshold) / contrast
    soft = (np.clip(excess * parameters.gain + 0.5, 0, 1) * SOFT).astype(np.uint16)
    inside = blurred(soft, parameters.edge_px) > SOFT // 2
    return Scene(soft, blurred(soft, parameters.flood_px), inside, excess)


def local_threshold(stain: UInt16, parameters: Parameters) -> tuple[Float64, Float64]:
    """Between the mean of what is darker and of what is paler than the mean around each pixel.

    One step of Ridler and Calvard's iteration in a sliding window. The floor keeps blank and pale areas empty.
    """
    radius = parameters.window_px
    size = (2 * radius + 1) ** 2
    value = stain.astype(np.float64)
    total = _box(value, radius)
    dark = value > np.maximum(total / size, parameters.floor)
    dark_total, dark_count = _box(np.where(dark, value, 0.0), radius), _box(dark.astype(np.float64), radius)
    high = dark_total / np.maximum(dark_count, 1)
    low = (total - dark_total) / np.maximum(size - dark_count, 1)
    threshold = np.maximum(low + parameters.share * (high - low), parameters.floor)
    return threshold, np.maximum(high - low, parameters.contrast)


def _box(value: Float64, radius: int) -> Float64:
    """Sums over a square window. The values are whole numbers, so the sums are exact."""
    edge = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.boxFilter(value, -1, edge, normalize=False, borderType=cv2.BORDER_REFLECT_101))
