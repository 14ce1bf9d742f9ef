"""tiffslide: tiled TIFFs that OpenSlide cannot open, and every address that fsspec knows (s3://, https://, memory://).

The structure of the file is read here as well, because tiffslide returns black for a tile that is not stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.slides import mpp
from wsi_nuc.slides.address import reaching, reason, shown
from wsi_nuc.slides.jpeghead import claimed_size
from wsi_nuc.slides.limits import MAX_TILE_PX, MAX_WHOLE_BYTES, attributes_of
from wsi_nuc.slides.localfile import COPY_AGAIN, open_file
from wsi_nuc.slides.pixels import (
    DECODE_ERRORS,
    TO_RGB,
    USUAL_BLOCK_PX,
    WHITE,
    check_colour,
    clip_to,
    decoding,
    depth_shift,
    place,
    to_rgb8,
)
from wsi_nuc.slides.pyramid import select_levels
from wsi_nuc.slides.tiff import Page, Structure, read_structure
from wsi_nuc.types import Bool, Box, PixelBlock, SlideInfo, SlideRef

# Black is zero, RGB, YCbCr: tifffile turns these into grey or RGB by itself.
COLOURS = (1, 2, 6)
# Without these, tifffile follows file names in the description and looks for the other files of a stack.
ONE_FILE = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}


class TiffSlideSource:
    """See `SlideSource`. `pages` holds the page of each level, for its missing tiles; None if not known."""

    def __init__(self, path: str, slide: Any, info: SlideInfo, kept: list[int], pages: list[Page | None]) -> None:
        self._path, self._slide, self._info, self._kept, self._pages = path, slide, info, kept, pages
        last = info.levels[-1]
        corner = Box(0, 0, min(last.width, 2048), min(last.height, 2048))
        # 8-bit values are taken as they are. No pixels are read for them, since these might be damaged.
        deep = pages[-1] is None or set(pages[-1].bits) != {8}
        self._shift = depth_shift(self._stored(len(info.levels) - 1, corner)) if deep else 0

    @property
    def info(self) -> SlideInfo:
        return self._info

    def block_px(self, level: int) -> tuple[int, int]:
        page = self._pages[level]
        return (page.tile_width, page.tile_height) if page is not None and page.tiled else USUAL_BLOCK_PX

    def close(self) -> None:
        self._slide.close()

    def read(self, level: int, box: Box) -> PixelBlock:
        inside = clip_to(self._info.levels[level], box)
        if not inside.area:
            return place(box, inside, np.empty((0, 0, 3), np.uint8))
        rgb = to_rgb8(self._stored(level, inside), self._shift)
        missing = _missing(self._pages[level], inside)
        if missing is not None:
            rgb[missing] = WHITE
        return place(box, inside, rgb, missing)

    def _stored(self, level: int, inside: Box) -> np.ndarray[Any, Any]:
        """The stored pixels. Their location is a level-0 pixel that tiffslide truncates to the wanted one."""
        stored = self._kept[level]
        factor = self._slide.level_downsamples[stored]
        location = (_level0(inside.x0, factor), _level0(inside.y0, factor))
        size = (inside.width, inside.height)
        with reaching(self._path), decoding(self._path, level, inside):
            pixels = np.asarray(self._slide.read_region(location, stored, size, as_array=True))
        check_colour(shown(self._path), pixels)
        return pixels


def _level0(pixel: int, factor: float) -> int:
    """The smallest level-0 coordinate that ``int(x / factor)`` takes to `pixel`."""
    at = math.ceil(pixel * factor)
    return at if int(at / factor) >= pixel else at + 1


def _missing(page: Page | None, inside: Box) -> Bool | None:
    """Which pixels of `inside` lie in tiles without data; None if every tile has data."""
    if page is None or not page.tiled or bool(page.byte_counts.all()):
        return None
    tile_rows = np.arange(inside.y0, inside.y1) // page.tile_height
    tile_columns = np.arange(inside.x0, inside.x1) // page.tile_width
    at = tile_rows[:, None] * page.columns + tile_columns[None, :]
    return np.asarray(page.byte_counts[at] == 0)


def _open(path: str) -> Any:
    from tiffslide import TiffSlide

    with reaching(path):
        try:
            slide = TiffSlide(path, tifffile_options=dict(ONE_FILE))
            # These are guarded as well: tifffile reads directories of the file only now.
            axes = slide.properties["tiffslide.series-axes"]
            _bound_tiles(slide.ts_tifffile)
        except ImportError as error:
            raise SlideError(
                shown(path), f"tiffslide: {reason(error)}", "install the package that it names"
            ) from error
        except (*DECODE_ERRORS, AttributeError) as error:
            raise SlideError(shown(path), f"tiffslide: {reason(error)}", COPY_AGAIN) from error
    if axes not in ("YXS", "CYX", "YX"):
        raise SlideError(shown(path), f"its axes are {axes}, so it is not one colour picture", TO_RGB)
    return slide


def _bound_tiles(file: Any) -> None:
    """Refuse tiles whose own header, by which a decoder allocates, claims more pixels than their directory."""
    for page in {id(level.keyframe): level.keyframe for series in file.series for level in series.levels}.values():
        page.decode = partial(
            _decoded, page.decode, page.tilewidth or page.imagewidth, page.tilelength or page.rowsperstrip
        )


def _decoded(
    decode: Callable[..., Any], width: int, height: int, data: bytes | None, *rest: Any, **named: Any
) -> Any:
    # Tiles of NDPI do not state a size: their header lies elsewhere in the file.
    claimed = claimed_size(data) if data is not None and "jpegheader" not in named else None
    if claimed is not None and (claimed[0] > width or claimed[1] > height):
        raise ValueError(f"a tile of {width} x {height} px claims {claimed[0]} x {claimed[1]} px")
    return decode(data, *rest, **named)


def _refusal(name: str, structure: Structure) -> str:
    """Why tiffslide would show wrong colours or decode the whole image for every box; empty if it would not."""
    if structure.ndpi:
        return ""
    base = structure.pages[0]
    if base.photometric not in COLOURS:
        return f"its photometric interpretation is {base.photometric}, not grey, RGB or YCbCr"
    strip_px = base.width * base.height / max(1, len(base.offsets))
    if not base.tiled and (base.whole_bytes <= MAX_WHOLE_BYTES or strip_px > MAX_TILE_PX):
        return "level 0 has no tiles"
    if len(_named_files(name, base.description)) > 1:
        return "its OME-XML spreads the picture over several files"
    return ""


def _named_files(name: str, description: str) -> set[str]:
    return {attributes.get("FileName", "") for attributes in attributes_of(name, description, "UUID")}


def _stated(properties: Any) -> mpp.Stated:
    names = ("tiffslide.mpp-x", "tiffslide.mpp-y", "tiffslide.vendor", "tiffslide.objective-power")
    values = ("" if properties.get(name) is None else str(properties.get(name)) for name in names)
    *pair, vendor, objective = values
    if vendor in ("", "generic-tiff"):
        x, y = (mpp.number(text) if text else 0.0 for text in pair)
        return mpp.Stated(tags_um=(x, y), objective=objective)
    return mpp.Stated((pair[0], pair[1]), objective=objective)


def open_slide(ref: SlideRef) -> TiffSlideSource:
    """Open a TIFF by path or URL with tiffslide; SlideError with the reason if that fails."""
    name = shown(ref.path)
    with closing(open_file(ref.path)) as file:
        structure = read_structure(file)
    if cause := _refusal(name, structure):
        raise SlideError(name, cause, "convert it to one tiled RGB TIFF")
    slide = _open(ref.path)
    sizes = [(int(w), int(h)) for w, h in slide.level_dimensions]
    kept, levels = select_levels(name, sizes)
    by_size = {(p.width, p.height): p for p in reversed(structure.pages) if p.tiled}
    vendor = str(slide.properties.get("tiffslide.vendor") or "generic-tiff")
    info = mpp.describe("tiffslide", vendor, levels, ref.mpp, _stated(slide.properties))
    try:
        return TiffSlideSource(ref.path, slide, info, kept, [by_size.get(sizes[i]) for i in kept])
    except DamagedPixels as error:
        raise SlideError(error.subject, error.cause, COPY_AGAIN) from error
