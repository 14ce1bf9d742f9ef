"""The direct path for tiled JPEG TIFF and SVS: `pread` at the tile's offset, one decoder call, one copy.

It opens a file only if it understands all of it; whatever a vendor adds (overlaps, padding, several areas) is left
to OpenSlide. Tiles near the right and lower edge of a box are kept, so that neighbouring regions, which overlap by
their halo, decode a shared tile once.
"""

from __future__ import annotations

from functools import partial
from itertools import count

import numpy as np

from wsi_nuc.errors import SlideError
from wsi_nuc.slides import mpp
from wsi_nuc.slides.limits import first_attributes
from wsi_nuc.slides.localfile import LocalFile
from wsi_nuc.slides.pixels import DECODE_ERRORS, WHITE, canvas, clip_to, damaged
from wsi_nuc.slides.pyramid import select_levels
from wsi_nuc.slides.tiff import Page, Structure, read_structure
from wsi_nuc.slides.tilecache import MAX_BYTES, TileCache, TileKey, Window
from wsi_nuc.types import Box, PixelBlock, SlideInfo, SlideRef, UInt8

JPEG, J2K_RGB = 7, 33005
RGB, YCBCR = 2, 6
# Twice the halo of a region: the overlap of neighbouring boxes.
EDGE_PX = 512
VENDOR_MARKS = ("Philips", "<scn", "<iScan", "iScan", "MedScan", "Ventana", "NDPI", "Hamamatsu")


def _colourspaces(page: Page, first_tile: bytes) -> tuple[str, str]:
    """JPEG and output colour space; the TIFF tag decides, except that JFIF data are YCbCr by definition."""
    jfif = first_tile[2:4] == b"\xff\xe0" and first_tile[6:10] == b"JFIF"
    return ("RGB" if page.photometric == RGB and not jfif else "YCBCR"), "RGB"


class JpegTiff:
    """See `SlideSource`. `tiles_decoded` counts decoder calls, for the benchmark of reading twice."""

    # One cache for all slides of the process: its size does not grow with open slides, and its memory is reused.
    _cache = TileCache(MAX_BYTES)
    _numbers = count()

    def __init__(self, file: LocalFile, info: SlideInfo, pages: tuple[Page, ...]) -> None:
        from imagecodecs import jpeg2k_decode, jpeg8_decode

        self._file, self._info, self._pages = file, info, pages
        self._number = next(self._numbers)
        self.tiles_decoded = 0
        self._decoders = []
        for page in pages:
            if page.compression == J2K_RGB:
                self._decoders.append(partial(jpeg2k_decode, numthreads=1))
                continue
            stored = np.flatnonzero(page.byte_counts)
            head = file.read_at(int(page.offsets[stored[0]]), 16) if len(stored) else b""
            space, out = _colourspaces(page, head)
            tables = page.jpeg_tables or None
            self._decoders.append(partial(jpeg8_decode, tables=tables, colorspace=space, outcolorspace=out))

    @property
    def info(self) -> SlideInfo:
        return self._info

    def block_px(self, level: int) -> tuple[int, int]:
        page = self._pages[level]
        return page.tile_width, page.tile_height

    def close(self) -> None:
        self._cache.forget(self._number)
        self._file.close()

    def read(self, level: int, box: Box) -> PixelBlock:
        inside = clip_to(self._info.levels[level], box)
        rgb = canvas(box, inside)
        missing = None
        page = self._pages[level]
        columns = _spans(page.tile_width, inside.x0, inside.x1, box.x0)
        for row, y, target_y, row_wanted in _spans(page.tile_height, inside.y0, inside.y1, box.y0):
            for column, x, target_x, column_wanted in columns:
                target, wanted = rgb[target_y, target_x], row_wanted or column_wanted
                if self._fetch((self._number, level, row, column), (y, x), target, wanted):
                    continue
                missing = np.zeros(rgb.shape[:2], np.bool_) if missing is None else missing
                target[:], missing[target_y, target_x] = WHITE, True
        return PixelBlock(rgb, missing)

    def _fetch(self, key: TileKey, window: Window, target: UInt8, keep: bool) -> bool:
        """Copy `window` of one tile to `target`; False where the file stores no such tile."""
        if self._cache.copy(key, window, target, keep):
            return True
        _, level, row, column = key
        page = self._pages[level]
        at = row * page.columns + column
        length, offset = int(page.byte_counts[at]), int(page.offsets[at])
        if length == 0 or offset == 0:
            return False
        data = self._file.read_at(offset, length)
        buffer = self._cache.take(page.tile_height, page.tile_width)
        if problem := self._decode(level, data, buffer):
            self._cache.give(buffer)
            raise damaged(self._file.name, level, f"tile row {row} column {column}", problem)
        target[:] = buffer[window]
        if keep:
            self._cache.put(key, buffer)
        else:
            self._cache.give(buffer)
        return True

    def _decode(self, level: int, data: bytes, buffer: UInt8) -> str:
        """Decode one tile into `buffer`; returns what is wrong with the tile, or an empty text."""
        # The decoder fills a truncated JPEG with grey without an error, so the end is looked for first.
        if self._pages[level].compression == JPEG and (data[:2] != b"\xff\xd8" or data.find(b"\xff\xd9", -64) < 0):
            return "its JPEG data have no beginning or no end"
        try:
            self._decoders[level](data, out=buffer)
        except DECODE_ERRORS as error:
            return str(error) or type(error).__name__
        self.tiles_decoded += 1
        return ""


def _spans(tile: int, start: int, stop: int, origin: int) -> list[tuple[int, slice, slice, bool]]:
    """Along one axis, each tile that start..stop touches: its index, the touched part within the tile, the place
    of this part counted from `origin`, and whether a later box may need the tile too.

    In rows, columns or Morton order, a box comes before its neighbours to the right and below, so only these
    count. In another order the pixels are the same, but more tiles are decoded twice.
    """
    first, last = start // tile, (stop - 1) // tile
    edge = max(2, -(-EDGE_PX // tile))
    spans = []
    for index in range(first, last + 1 if stop > start else first):
        corner = index * tile
        low, high = max(corner, start), min(corner + tile, stop)
        spans.append(
            (index, slice(low - corner, high - corner), slice(low - origin, high - origin), last - index < edge)
        )
    return spans


def _refusal(page: Page) -> str:
    """Why this reader does not decode a page; empty if it does."""
    if not page.tiled:
        return "level 0 has no tiles"
    if page.compression not in (JPEG, J2K_RGB):
        return f"its compression is {page.compression}, not JPEG"
    if page.bits != (8, 8, 8) or page.samples != 3 or page.planar != 1:
        return f"its pixels have {page.samples} samples of {page.bits} bits in {page.planar} plane order"
    if page.photometric not in (RGB, YCBCR) or (page.compression == J2K_RGB and page.photometric != RGB):
        return f"its photometric interpretation is {page.photometric}"
    return ""


def choose_pages(name: str, structure: Structure) -> list[Page]:
    """The tiled pages that may be levels, level 0 first; SlideError if the file is not a plain pyramid."""
    if structure.ndpi:
        raise SlideError(name, "is an NDPI file", "use --reader openslide")
    base = structure.pages[0]
    cause = _refusal(base)
    mark = next(
        (
            text
            for text in VENDOR_MARKS
            if text in base.description[:65536] or text in base.software or text in base.xmp[:4096]
        ),
        "",
    )
    if mark:
        cause = f"comes from a vendor with rules of its own ({mark.strip('<')})"
    tiled = [page for page in structure.pages if page.tiled]
    if not cause and sum((p.width, p.height) == (base.width, base.height) for p in tiled) > 1:
        cause = "has several planes of the size of level 0"
    if not cause and any(p.width * p.height > base.width * base.height for p in tiled):
        cause = "has a larger image after the first"
    if cause:
        raise SlideError(name, cause, "use --reader auto")
    return [page for page in tiled if not _refusal(page)]


def stated_resolution(name: str, page: Page) -> tuple[str, mpp.Stated]:
    """The vendor, and what the first page says about the resolution. Nothing else of its text is kept."""
    tags = mpp.tags_um(page.resolution)
    text = page.description
    if text.startswith("Aperio"):
        fields = mpp.aperio_fields(text)
        value = fields.get("MPP", "")
        return "aperio", mpp.Stated((value, value), tags, fields.get("AppMag", ""))
    if "<OME" in text[:4096]:
        pixels = first_attributes(name, text, "Pixels")
        x, y = (
            mpp.in_um(pixels.get(f"PhysicalSize{a}", ""), pixels.get(f"PhysicalSize{a}Unit", "")) for a in "XY"
        )
        return "ome", mpp.Stated((x, y), tags)
    return "generic-tiff", mpp.Stated(tags_um=tags)


def open_slide(ref: SlideRef) -> JpegTiff:
    """Open a tiled JPEG TIFF; SlideError with the reason if another reader has to."""
    file = LocalFile(ref.path)
    structure = read_structure(file)
    pages = choose_pages(ref.path, structure)
    kept, levels = select_levels(ref.path, [(page.width, page.height) for page in pages])
    vendor, stated = stated_resolution(ref.path, structure.pages[0])
    info = mpp.describe("jpegtiff", vendor, levels, ref.mpp, stated)
    return JpegTiff(file, info, tuple(pages[i] for i in kept))
