"""The one way in which pixels come to another resolution, in a run, in training and in evaluation, and when they
are left as they are."""

from __future__ import annotations

import numpy as np
from PIL import Image

from wsi_nuc.types import UInt8

# Within this share of a resolution its pixels are taken as they are: scanners of one nominal magnification
# differ by as much (0.2431-0.2528 um at 40x), and resampling would blur for nothing.
SNAP = 0.03


def resized(rgb: UInt8, size: tuple[int, int], corners: tuple[float, float, float, float] | None = None) -> UInt8:
    """H x W x 3 to `size` (width, height). `corners`: x0, y0, x1, y1 of the part to take, fractions of a pixel
    allowed; all of it where None.

    Triangle filter, widened when shrinking so that nothing aliases; edges at their exact fractional place.
    """
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=corners))


def nearly_one(ratio: float) -> bool:
    """Two resolutions so near to each other that pixels of the one are taken for those of the other."""
    return abs(ratio - 1) <= SNAP
