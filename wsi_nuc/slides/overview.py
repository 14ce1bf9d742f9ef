"""The low-resolution view of a slide, in bounded memory and without reading level 0 where there is a pyramid."""

from __future__ import annotations

import math

import numpy as np

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.limits import TILE_AGAIN
from wsi_nuc.slides.localfile import COPY_AGAIN
from wsi_nuc.slides.pixels import read_around
from wsi_nuc.types import Bool, Box, Level, Overview, PixelBlock, SlideInfo, SlideSource, UInt8

COARSEST_UM = 8.0
MOST_PIXELS = 3_000_000
# A patch of a few hundred microns would be a handful of pixels at 8 um: it is shown finer, up to this many.
PATCH_PIXELS = 100_000
# A slide of 140,000 x 140,000 px without smaller levels.
MOST_READ_PIXELS = 2 * 10**10
BLOCK_PX = 4096


def overview(source: SlideSource, mpp: float) -> Overview:
    """The view at about 8 um/px (coarser for huge slides, finer for patches), averaged not sampled."""
    index, factor = choose_view(source.info, mpp)
    level = source.info.levels[index]
    if level.width * level.height > MOST_READ_PIXELS:
        cause = f"its smallest level that would do has {level.width} x {level.height} px, too many to look through"
        raise SlideError("", cause, TILE_AGAIN)
    shape = (max(1, math.ceil(level.height / factor)), max(1, math.ceil(level.width / factor)))
    rgb, unknown = np.full((*shape, 3), 255, np.uint8), np.zeros(shape, np.bool_)
    damaged, reason = 0, ""
    for box in _blocks(shape, factor):
        block = read_around(source, index, Box(*(edge * factor for edge in (box.x0, box.y0, box.x1, box.y1))))
        damaged += 0 if block.damaged is None else int(np.count_nonzero(block.damaged))
        reason = reason or block.cause
        _average(block, box, factor, level, (rgb, unknown))
    if damaged and unknown.all():
        # Not DamagedPixels: its remedy, to go on without bad places, would leave nothing of this slide.
        cause = f"nothing of the slide can be decoded: it {reason}"
        raise SlideError("", cause, COPY_AGAIN)
    share = damaged / (level.width * level.height)
    return Overview(source.info, mpp, rgb, level.downsample * factor, unknown, share)


def choose_view(info: SlideInfo, mpp: float) -> tuple[int, int]:
    """Level to read and how many of its pixels make one of the view, per axis."""
    area = float(info.width * info.height)
    wanted = max(min(COARSEST_UM / mpp, math.sqrt(area / PATCH_PIXELS)), math.sqrt(area / MOST_PIXELS), 1.0)
    usable = [i for i, level in enumerate(info.levels) if level.downsample <= wanted] or [0]
    index = max(usable, key=lambda i: info.levels[i].downsample)
    level = info.levels[index]
    factor = max(1, math.floor(wanted / level.downsample))
    # Whole factors are coarse steps: rounded down, the view could be twice as large as it may be.
    while math.ceil(level.width / factor) * math.ceil(level.height / factor) > MOST_PIXELS:
        factor += 1
    return index, factor


def _blocks(shape: tuple[int, int], factor: int) -> list[Box]:
    """Boxes of view pixels; square, because strips as wide as a slide would decode file tiles several times."""
    height, width = shape
    edge = max(1, BLOCK_PX // factor)
    return [
        Box(x, y, min(width, x + edge), min(height, y + edge))
        for y in range(0, height, edge)
        for x in range(0, width, edge)
    ]


def _average(block: PixelBlock, box: Box, factor: int, level: Level, into: tuple[UInt8, Bool]) -> None:
    """Mean over factor x factor pixels; at the right and bottom edge over those that the level has."""
    rgb, unknown = into
    wide = min(box.x1 * factor, level.width) - box.x0 * factor
    high = min(box.y1 * factor, level.height) - box.y0 * factor
    place = np.s_[box.y0 : box.y1, box.x0 : box.x1]
    rgb[place] = _shrink(block.rgb[:high, :wide], factor)
    if block.lost is not None:
        gone = np.where(block.lost[:high, :wide], np.uint8(255), np.uint8(0))
        unknown[place] = _shrink(gone, factor) > 127


def _shrink(pixels: UInt8, factor: int) -> UInt8:
    import cv2

    if factor == 1:
        return pixels
    high, wide = (-size % factor for size in pixels.shape[:2])
    padded = cv2.copyMakeBorder(pixels, 0, high, 0, wide, cv2.BORDER_REPLICATE) if high or wide else pixels
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    shrunk: UInt8 = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
    return shrunk
