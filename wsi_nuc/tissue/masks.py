"""Small operations on boolean masks, in pixels; each costs the same whatever its radius."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Bool, Float32

# Of a wide blur: the smaller image keeps at least this sigma, and as many pixels along each side.
NARROW_PX, WIDE_PX = 2.0, 16


Number = TypeVar("Number", np.uint8, np.float32)


def grown(mask: Bool, radius_px: float) -> Bool:
    """All pixels within the radius of a pixel of the mask."""
    import cv2

    if radius_px < 1 or not mask.any():
        return mask
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius_px)


def closed(mask: Bool, radius_px: float) -> Bool:
    """Gaps narrower than twice the radius filled; the image's edge takes no part."""
    wide = int(radius_px) + 1
    padded = np.pad(mask, wide)
    return ~grown(~grown(padded, radius_px), radius_px)[wide:-wide, wide:-wide]


def half_widths(mask: Bool) -> Float32:
    """Distance of each pixel of the mask to the nearest one outside, the image's surroundings included."""
    import cv2

    return np.asarray(cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1])


def without_specks(mask: Bool, smallest_px: float) -> Bool:
    """The mask without connected parts of fewer pixels."""
    import cv2

    if not mask.any():
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep: Any = stats[:, cv2.CC_STAT_AREA] >= smallest_px
    keep[0] = False
    return np.asarray(keep[labels])


def extremes(image: npt.NDArray[Number]) -> tuple[npt.NDArray[Number], npt.NDArray[Number]]:
    """Least and greatest of three channels at each pixel; numpy reduces so short an axis ten times slower."""
    first, second, third = image[..., 0], image[..., 1], image[..., 2]
    low = np.minimum(np.minimum(first, second), third)
    return low, np.maximum(np.maximum(first, second), third)


def blurred(image: Float32, sigma_px: float) -> Float32:
    """Gaussian; the image itself where the blur would not reach the next pixel. A wide one is that of a smaller
    image, which looks the same and costs a fraction."""
    import cv2

    if sigma_px < 0.3:
        return image
    step = int(sigma_px / NARROW_PX)
    if step < 2 or min(image.shape[:2]) < WIDE_PX * step:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE))
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // step, height // step), interpolation=cv2.INTER_AREA)
    # The means of step pixels, and the lines drawn between them, already blur by these variances.
    left = sigma_px**2 - (step**2 - 1) / 12 - step**2 / 6
    small = cv2.GaussianBlur(small, (0, 0), left**0.5 / step, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
