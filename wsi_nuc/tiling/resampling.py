"""The one way in which pixels come to another resolution: in a run, in training and in evaluation."""

from __future__ import annotations

import numpy as np
from PIL import Image

from wsi_nuc.types import UInt8


def resized(rgb: UInt8, size: tuple[int, int], corners: tuple[float, float, float, float] | None = None) -> UInt8:
    """H x W x 3 to `size` (width, height). `corners`: x0, y0, x1, y1 of the part to take, fractions of a pixel
    allowed; all of it where None.

    Triangle filter, widened when shrinking so that nothing aliases; edges at their exact fractional place.
    """
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=corners))
