"""Plain images: PNG, JPEG and TIFF without tiles, decoded whole, with a cap on their size.

Their dpi is never taken for microns per pixel, since most of them state a screen's 72 or 96. The resolution tags
of a TIFF are, by the rules of `mpp`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import SlideError
from wsi_nuc.slides import mpp
from wsi_nuc.slides.jpeghead import jpeg_head
from wsi_nuc.slides.limits import TILE_AGAIN, check_whole
from wsi_nuc.slides.localfile import COPY_AGAIN, LocalFile, refuse_url
from wsi_nuc.slides.pixels import (
    DECODE_ERRORS,
    check_colour,
    clip_to,
    depth_shift,
    place,
    rows_and_columns,
    to_rgb8,
)
from wsi_nuc.slides.tiff import MAGIC, read_structure
from wsi_nuc.types import Box, Level, PixelBlock, SlideInfo, SlideRef, UInt8

BAND_PX = 2**20
# Progressive JPEG has about ten.
MAX_SCANS = 64
MIN_IS_WHITE = 0
# Black or white is zero, RGB, YCbCr; a palette or CMYK would be taken for something else.
PLAIN_COLOURS = (MIN_IS_WHITE, 1, 2, 6)


class Picture:
    """See `SlideSource`. It has one level, in memory."""

    def __init__(self, rgb: UInt8, info: SlideInfo) -> None:
        self._rgb, self._info = rgb, info

    @property
    def info(self) -> SlideInfo:
        return self._info

    def block_px(self, level: int) -> tuple[int, int]:
        return self._info.width, self._info.height

    def close(self) -> None:
        self._rgb = np.empty((0, 0, 3), np.uint8)

    def read(self, level: int, box: Box) -> PixelBlock:
        inside = clip_to(self._info.levels[level], box)
        return place(box, inside, self._rgb[rows_and_columns(inside, Box(0, 0, 0, 0))].copy())


def _rgb(pixels: np.ndarray[Any, Any]) -> UInt8:
    """RGB of decoded pixels, a few rows at a time: in one go, they would be in memory several times."""
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.flags.c_contiguous:
        return pixels
    shift = depth_shift(pixels)
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in _bands(*pixels.shape[:2]):
        rgb[rows] = to_rgb8(pixels[rows], shift)
    return rgb


def _bands(height: int, width: int) -> Iterator[slice]:
    step = max(1, BAND_PX // width)
    return (slice(y, min(y + step, height)) for y in range(0, height, step))


def _tiff_pixels(path: str) -> tuple[UInt8, mpp.Stated]:
    import tifffile

    file = LocalFile(path)
    page = read_structure(file).pages[0]
    file.close()
    if page.photometric not in PLAIN_COLOURS or len(set(page.bits)) > 1 or page.bits[0] not in (1, 8, 16):
        cause = f"its pixels have {page.bits} bits and photometric interpretation {page.photometric}"
        raise SlideError(path, cause, "convert it to RGB")
    with _decoding(path), tifffile.TiffFile(path) as tiff:
        check_whole(path, page.width, page.height, max(page.whole_bytes, tiff.pages.first.nbytes))
        pixels = tiff.pages.first.asarray()
    if page.planar == 2 and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    check_colour(path, pixels)
    if page.photometric == MIN_IS_WHITE:
        np.invert(pixels, out=pixels)
    return _rgb(pixels), mpp.Stated(tags_um=mpp.tags_um(page.resolution))


def _pillow_pixels(path: str) -> UInt8:
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns of large pictures; `check_whole` decides instead.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with _decoding(path):
                picture = Image.open(path, formats=("PNG", "JPEG"))
        except Image.DecompressionBombError as error:
            raise SlideError(path, f"is too large for a plain image ({error})", TILE_AGAIN) from error
    with picture:
        check_whole(path, *picture.size, _pillow_bytes(path, picture))
        return _pillow_rgb(path, picture)


@contextmanager
def _decoding(path: str) -> Iterator[None]:
    """Stands around calls of tifffile and Pillow alone; see `pixels.decoding`."""
    try:
        yield
    except (*DECODE_ERRORS, SyntaxError) as error:
        raise SlideError(path, f"cannot be decoded as an image ({_reason(error)})", COPY_AGAIN) from error


def _pillow_bytes(path: str, picture: Any) -> int:
    """The memory for Pillow's pixels (one byte, four, or two and a copy), a pointer per row, and our RGB."""
    each = 1 if picture.mode in ("1", "L", "P") else 8 if picture.mode == "I" else 4
    if picture.format != "PNG":
        with closing(LocalFile(path)) as file:
            head = jpeg_head(file)
        if head.in_pieces:
            each += 2 * head.components
            _check_scans(path)
    width, height = int(picture.width), int(picture.height)
    return height * (width * (each + 3) + 8)


def _check_scans(path: str) -> None:
    """Refuse many scans: each goes over the whole picture again, even if it has only a few bytes."""
    scans = Path(path).read_bytes().count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise SlideError(path, f"comes in {scans} scans, over {MAX_SCANS}", TILE_AGAIN)


def _pillow_rgb(path: str, picture: Any) -> UInt8:
    with _decoding(path):
        mode, (width, height) = "RGBA" if picture.has_transparency_data else "RGB", picture.size
        picture.load()
    if picture.mode.startswith("I"):
        return _rgb(np.asarray(picture).astype(np.uint16, copy=False))
    rgb = np.empty((height, width, 3), np.uint8)
    for rows in _bands(height, width):
        with _decoding(path):
            band = picture.crop((0, rows.start, width, rows.stop)).convert(mode)
        rgb[rows] = to_rgb8(np.asarray(band))
    return rgb


def open_slide(ref: SlideRef) -> Picture:
    """Decode a plain image, or SlideError with the reason."""
    refuse_url(ref.path)
    stated, vendor = mpp.Stated(), "plain"
    with closing(LocalFile(ref.path)) as file:
        is_tiff = file.read_at(0, 4) in MAGIC
    if is_tiff:
        rgb, stated = _tiff_pixels(ref.path)
    else:
        rgb = _pillow_pixels(ref.path)
    height, width = rgb.shape[:2]
    return Picture(rgb, mpp.describe("image", vendor, (Level(width, height, 1.0),), ref.mpp, stated))


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
