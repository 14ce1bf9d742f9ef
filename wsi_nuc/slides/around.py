"""Reading around damage: what a box of a slide holds where some of it cannot be decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from wsi_nuc.errors import DamagedPixels
from wsi_nuc.slides.base import SlideSource
from wsi_nuc.slides.pixels import WHITE, clip_to, rows_and_columns
from wsi_nuc.types import Box, PixelBlock

Size = tuple[int, int]

# Where a file's blocks are smaller, several are tried at once: a call for each would take for ever.
LEAST_EDGE_PX = 64


def read_around(source: SlideSource, level: int, box: Box) -> PixelBlock:
    """As `source.read`, but pixels that cannot be decoded are white and marked, block of the file by block.

    Errors other than DamagedPixels are the slide's and are raised.
    """
    try:
        return source.read(level, box)
    except DamagedPixels:
        # What follows is outside: within, the error would keep the pixels of the failed reading in memory.
        pass
    rgb = np.full((box.height, box.width, 3), WHITE, np.uint8)
    missing, damaged = (np.zeros(rgb.shape[:2], np.bool_) for _ in range(2))
    first_cause = ""
    for part, block, cause in _parts(
        source, level, clip_to(source.info.levels[level], box), _sizes(source, level)
    ):
        window = rows_and_columns(part, box)
        if block is None:
            damaged[window] = True
            first_cause = first_cause or cause
            continue
        rgb[window] = block.rgb
        if block.missing is not None:
            missing[window] = block.missing
    return PixelBlock(rgb, missing if missing.any() else None, damaged if damaged.any() else None, first_cause)


def _sizes(source: SlideSource, level: int) -> list[Size]:
    """Width and height of the parts to try: at last the blocks of the file themselves."""
    width, height = source.block_px(level)
    several = (width * -(-LEAST_EDGE_PX // width), height * -(-LEAST_EDGE_PX // height))
    return [several, (width, height)] if several != (width, height) else [several]


def _parts(
    source: SlideSource, level: int, box: Box, sizes: Sequence[Size]
) -> Iterator[tuple[Box, PixelBlock | None, str]]:
    """All of `box` in parts, each with its pixels, or None and why they cannot be decoded."""
    (width, height), smaller = sizes[0], sizes[1:]
    for y in range(box.y0 // height * height, box.y1, height):
        for x in range(box.x0 // width * width, box.x1, width):
            part = Box(x, y, x + width, y + height).intersect(box)
            try:
                block, cause = source.read(level, part), ""
            except DamagedPixels as error:
                block, cause = None, error.cause
            if block is None and smaller:
                yield from _parts(source, level, part, smaller)
            else:
                yield part, block, cause
