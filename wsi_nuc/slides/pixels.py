"""Pixels of a slide as white-padded RGB blocks: what readers make of decoded data, and reading around damage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.slides.address import reason, shown
from wsi_nuc.slides.localfile import COPY_AGAIN
from wsi_nuc.types import Box, Level, PixelBlock, SlideSource, UInt8

WHITE = 255
# For a file that does not say how it stores its pixels, or that stores them without regular blocks.
USUAL_BLOCK_PX = (256, 256)
# Where a file's blocks are smaller, `read_around` tries several at once: one call for each would take for ever.
LEAST_EDGE_PX = 64
# The axes after rows and columns: grey, or one to four planes.
PLANES = ((), (1,), (2,), (3,), (4,))
TO_RGB = "convert it to RGB with 8 bits"
# What imagecodecs, tifffile, zarr and Pillow raise for data they cannot decode.
DECODE_ERRORS = (RuntimeError, ValueError, OSError, KeyError, IndexError, TypeError, EOFError, ArithmeticError)
Size = tuple[int, int]


def clip_to(level: Level, box: Box) -> Box:
    """The part of `box` that lies on the level; its area is 0 if there is none."""
    inside = box.intersect(Box(0, 0, level.width, level.height))
    return inside if inside.area else Box(box.x0, box.y0, box.x0, box.y0)


def rows_and_columns(box: Box, origin: Box) -> tuple[slice, slice]:
    """Where `box` lies in an array whose first pixel is the corner of `origin`."""
    return (
        slice(box.y0 - origin.y0, box.y1 - origin.y0),
        slice(box.x0 - origin.x0, box.x1 - origin.x0),
    )


def canvas(box: Box, inside: Box) -> UInt8:
    """H x W x 3 for `box`: white around `inside`, which is left uninitialised for the reader to fill."""
    rgb = np.empty((box.height, box.width, 3), np.uint8)
    if inside == box:
        return rgb
    rows, columns = rows_and_columns(inside, box)
    rgb[: rows.start], rgb[rows.stop :] = WHITE, WHITE
    rgb[rows, : columns.start], rgb[rows, columns.stop :] = WHITE, WHITE
    return rgb


def place(box: Box, inside: Box, rgb: UInt8, missing: npt.NDArray[np.bool_] | None = None) -> PixelBlock:
    """The block of `box` from the pixels of `inside`. Pixels outside of the level are white and not missing."""
    mask = missing if missing is not None and missing.any() else None
    if inside == box:
        return PixelBlock(np.ascontiguousarray(rgb), mask)
    out = canvas(box, inside)
    window = rows_and_columns(inside, box)
    out[window] = rgb
    if mask is None:
        return PixelBlock(out)
    full = np.zeros((box.height, box.width), np.bool_)
    full[window] = mask
    return PixelBlock(out, full)


def damaged(path: str, level: int, where: Box | str, cause: object) -> DamagedPixels:
    """The error of every reader for data that it cannot decode. `where` is a box or a tile of the level."""
    place = where if isinstance(where, str) else f"x {where.x0}-{where.x1} y {where.y0}-{where.y1}"
    remedy = f"{COPY_AGAIN}, or pass --allow-bad-tiles"
    if isinstance(cause, BaseException):
        cause = reason(cause)
    return DamagedPixels(f"{shown(path)}, level {level}, {place}", f"is damaged: {cause}", remedy)


@contextmanager
def decoding(path: str, level: int, inside: Box) -> Iterator[None]:
    """Stands around the call of a library that decodes, and around nothing else: what our own code raises is a
    fault of the program, and must not read as damage of the file."""
    try:
        yield
    except DECODE_ERRORS as error:
        raise damaged(path, level, inside, error) from error


def check_colour(name: str, pixels: npt.NDArray[Any]) -> None:
    """Refuse decoded pixels that `to_rgb8` has no meaning for."""
    if pixels.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.bool_)):
        raise SlideError(name, f"pixels of type {pixels.dtype} are not supported", TO_RGB)
    if pixels.ndim < 2 or not pixels.size or pixels.shape[2:] not in PLANES:
        raise SlideError(name, f"pixels of shape {pixels.shape} are not a colour picture", TO_RGB)


def depth_shift(sample: npt.NDArray[Any]) -> int:
    """Bits to drop so that the brightest value of a 16-bit `sample` of the slide fits into 8 bits.

    The whole slide has the same shift, because a stretch per region would put seams into the picture.
    """
    if sample.dtype == np.uint8 or not sample.size:
        return 0
    return max(0, int(sample.max()).bit_length() - 8)


def to_rgb8(pixels: npt.NDArray[Any], shift: int = 0) -> UInt8:
    """RGB uint8 from pixels that pass `check_colour`. Of 2 or 4 planes, the last is alpha."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * WHITE
    if pixels.dtype != np.uint8:
        pixels = np.minimum(pixels >> shift, WHITE).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] in (2, 4):
        pixels = over_white(pixels)
    rgb = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    return np.ascontiguousarray(rgb)


def over_white(pixels: UInt8) -> UInt8:
    """Colour with straight alpha in the last plane, composed on white; exact where alpha is 0 or 255."""
    alpha, colour = pixels[..., -1:], pixels[..., :-1]
    if (alpha == WHITE).all():
        return colour
    wide = colour.astype(np.uint16) * alpha + WHITE * (WHITE - alpha.astype(np.uint16))
    return ((wide + 127) // WHITE).astype(np.uint8)


def read_around(source: SlideSource, level: int, box: Box) -> PixelBlock:
    """As `source.read`, but the file's blocks that cannot be decoded are white and marked as damaged.

    Errors other than DamagedPixels concern the whole slide and are raised.
    """
    try:
        return source.read(level, box)
    except DamagedPixels:
        # The rest stands below: in here, the error would keep the pixels of the failed reading in memory.
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
    """Width and height of the parts to try, one after the other; the last are the file's own blocks."""
    width, height = source.block_px(level)
    several = (width * -(-LEAST_EDGE_PX // width), height * -(-LEAST_EDGE_PX // height))
    return [several, (width, height)] if several != (width, height) else [several]


def _parts(
    source: SlideSource, level: int, box: Box, sizes: Sequence[Size]
) -> Iterator[tuple[Box, PixelBlock | None, str]]:
    """All of `box` in parts, each with its pixels, or with None and the reason why they cannot be decoded."""
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
