"""Pixels at the one resolution that features are measured at, and the two stains in them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.models.classical.settings import unmixing
from wsi_nuc.slides.pixels import read_around
from wsi_nuc.tiling.read import resample
from wsi_nuc.tiling.scale import Scale, choose_scale
from wsi_nuc.types import Bool, Box, Float64, SlideInfo, SlideSource, UInt8

Int16 = npt.NDArray[np.int16]

UM_PER_PX = 0.5
# Where a whole number of a level's pixels comes this near to UM_PER_PX, they are averaged and not resampled. That
# holds for all usual scanners.
WHOLE_FACTOR = 0.06
# Densities are whole multiples of this, so that sums of them are exact.
OD = 1 / 2000


def feature_scale(info: SlideInfo, mpp: float) -> Scale:
    """The level and whole factor nearest to `UM_PER_PX`. Where none is near, pixels are resampled to it."""
    off, level, factor = min(_choices(info, mpp))
    if off > math.log1p(WHOLE_FACTOR):
        return choose_scale(info, mpp, UM_PER_PX)
    l0_per_grid = info.levels[-level].downsample * factor
    return Scale(-level, info.levels[-level].downsample, l0_per_grid, mpp * l0_per_grid)


def _choices(info: SlideInfo, mpp: float) -> Iterator[tuple[float, int, int]]:
    """For each level: how far off it is with the best whole factor, its negative index, and that factor.

    The negative index puts the coarsest of equal levels first.
    """
    for index, level in enumerate(info.levels):
        um = mpp * level.downsample
        factor = max(1, round(UM_PER_PX / um))
        yield abs(math.log(um * factor / UM_PER_PX)), -index, factor


def read_grid(source: SlideSource, scale: Scale, box: Box) -> tuple[UInt8, Bool | None]:
    """H x W x 3 of `box` in pixels of `scale`, and H x W: where the file has no data that can be decoded.

    None in place of the latter means that all pixels are there.
    """
    factor = round(scale.level_px_per_grid)
    if factor != scale.level_px_per_grid:
        box_level = scale.level_box(box)
        block = read_around(source, scale.level, box_level)
        rgb = resample(block.rgb, box_level, scale, box)
        return rgb, None if block.lost is None else _covered(block.lost, box_level, scale, box)
    box_level = Box(box.x0 * factor, box.y0 * factor, box.x1 * factor, box.y1 * factor)
    block = read_around(source, scale.level, box_level)
    return _averaged(block.rgb, factor), None if block.lost is None else _any_of(block.lost, factor)


def _averaged(rgb: UInt8, factor: int) -> UInt8:
    if factor == 1:
        return rgb
    size = (rgb.shape[1] // factor, rgb.shape[0] // factor)
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))


def _any_of(missing: Bool, factor: int) -> Bool:
    height, width = (edge // factor for edge in missing.shape)
    return np.asarray(missing.reshape(height, factor, width, factor).any(axis=(1, 3)))


def _covered(missing: Bool, box_level: Box, scale: Scale, box: Box) -> Bool:
    """Looks up the pixel of the level that lies under the middle of each pixel."""
    ratio = scale.level_px_per_grid
    columns = ((np.arange(box.x0, box.x1) + 0.5) * ratio).astype(np.int64) - box_level.x0
    rows = ((np.arange(box.y0, box.y1) + 0.5) * ratio).astype(np.int64) - box_level.y0
    return np.asarray(missing[np.ix_(rows, columns)])


def unmixed(rgb: UInt8) -> tuple[Int16, Int16]:
    """Haematoxylin and eosin, H x W each, in units of `OD`; negative where the other stain explains too much."""
    haematoxylin, eosin = (weighted(rgb, unmixing()[:, stain]) for stain in (0, 1))
    return haematoxylin, eosin


def weighted(rgb: UInt8, weights: Float64) -> Int16:
    """H x W: the densities of red, green and blue times these weights, added up, in units of `OD`."""
    density = np.rint(-np.log10((np.arange(256) + 1) / 256) / OD)
    tables = np.rint(density[:, None] * weights).astype(np.int16)
    red, green, blue = (cv2.LUT(plane, tables[:, i]) for i, plane in enumerate(cv2.split(rgb)))
    return np.asarray(cv2.add(cv2.add(red, green), blue))
