"""What the classical model sees in a tile: haematoxylin, and the foreground made from it.

The foreground is judged against the surroundings within a few cells. Everything up to the labels is integer
arithmetic or a function of one pixel, so the same pixels give the same bits wherever a tile begins and in whatever
order a library sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.models.classical.settings import Parameters, blur_radius
from wsi_nuc.types import Bool, Float64, UInt8

UInt16 = npt.NDArray[np.uint16]
Int32 = npt.NDArray[np.int32]

UNIT = 1 / 2000  # of optical density
MOST = 8000
DARK = 40  # no channel brighter: scanner black, the background of fluorescence, black ink
SOFT = 4000  # the soft foreground is 0..SOFT, half of it at the threshold


def haematoxylin(rgb: UInt8, parameters: Parameters) -> UInt16:
    """H x W, 0..`MOST`, slightly blurred. Blue and green ink and black areas count as unstained."""
    density = np.rint(-np.log10((np.arange(256) + 1) / 256) / UNIT)
    tables = np.rint(density[:, None] * parameters.stain).astype(np.int32)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    amount = tables[:, 0][red] + tables[:, 1][green] + tables[:, 2][blue]
    od = density.astype(np.int32)
    # Haematoxylin absorbs green at least as well as red; the ink of felt pens does not.
    ink = 4 * od[red] > 5 * od[green] + 400
    dark = np.maximum(np.maximum(red, green), blue) < DARK
    amount[ink | dark] = 0
    return blurred(np.clip(amount, 0, MOST).astype(np.uint16), parameters.smooth_px)


def blurred(image: UInt16, sigma_px: float) -> UInt16:
    """OpenCV's Gaussian of 16-bit images is fixed-point arithmetic; the kernel is cut at three sigma."""
    edge = 2 * blur_radius(sigma_px) + 1
    return np.asarray(cv2.GaussianBlur(image, (edge, edge), sigma_px, borderType=cv2.BORDER_REFLECT_101))


@dataclass(frozen=True, slots=True)
class Scene:
    """What the model sees in one tile; each field is H x W."""

    soft: UInt16
    """The foreground, 0..SOFT."""
    order: UInt16
    """The foreground, smoothed: the flood follows it."""
    inside: Bool
    """What may become a nucleus."""
    excess: Float64
    """Stain above the local threshold, in units of the local contrast."""


def scene_of(rgb: UInt8, parameters: Parameters) -> Scene:
    stain = haematoxylin(rgb, parameters)
    threshold, contrast = local_threshold(stain, parameters)
    excess = (stain - threshold) / contrast
    soft = (np.clip(excess * parameters.gain + 0.5, 0, 1) * SOFT).astype(np.uint16)
    inside = blurred(soft, parameters.edge_px) > SOFT // 2
    return Scene(soft, blurred(soft, parameters.flood_px), inside, excess)


def local_threshold(stain: UInt16, parameters: Parameters) -> tuple[Float64, Float64]:
    """Threshold and contrast at each pixel, both H x W.

    The threshold lies between two means: of what is darker and of what is paler than the mean around the pixel.
    This is one step of Ridler and Calvard's iteration, in a sliding window. The floor keeps blank and pale areas
    empty.
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
