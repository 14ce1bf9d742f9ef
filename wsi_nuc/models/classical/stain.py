"""From RGB to the amount of haematoxylin, in whole numbers.

Everything up to the labels is integer arithmetic or a function of one pixel: the same pixels give the same bits
wherever a tile begins and however a library sums.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.models.classical.settings import Parameters, blur_radius
from wsi_nuc.types import UInt8

UInt16 = npt.NDArray[np.uint16]
Int32 = npt.NDArray[np.int32]

UNIT = 1 / 2000  # of optical density
MOST = 8000
DARK = 40  # no channel brighter: scanner black, the background of fluorescence, black ink


def haematoxylin(rgb: UInt8, parameters: Parameters) -> UInt16:
    """H x W, 0..`MOST`, slightly blurred. Blue and green ink and black areas count as unstained."""
    density = np.rint(-np.log10((np.arange(256) + 1) / 256) / UNIT)
    tables = np.rint(density[:, None] * parameters.stain).astype(np.int32)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    amount = tables[:, 0][red] + tables[:, 1][green] + tables[:, 2][blue]
    od = density.astype(np.int32)
    # Haematoxylin absorbs green at least as well as red; ink of felt pens does not.
    ink = 4 * od[red] > 5 * od[green] + 400
    dark = np.maximum(np.maximum(red, green), blue) < DARK
    amount[ink | dark] = 0
    return blurred(np.clip(amount, 0, MOST).astype(np.uint16), parameters.smooth_px)


def blurred(image: UInt16, sigma_px: float) -> UInt16:
    """OpenCV's Gaussian of 16-bit images is fixed-point arithmetic; the kernel is cut at three sigma."""
    edge = 2 * blur_radius(sigma_px) + 1
    return np.asarray(cv2.GaussianBlur(image, (edge, edge), sigma_px, borderType=cv2.BORDER_REFLECT_101))
