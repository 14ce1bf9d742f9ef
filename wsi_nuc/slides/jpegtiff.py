"""The direct path for tiled JPEG TIFF and SVS: `pread` at the tile's offset, one decoder call, one copy.

It opens a file only where it understands all of it; anything a vendor adds (overlaps, padding, several areas) is
left to OpenSlide. Tiles within a few tiles of a box's edge are kept, so that neighbouring regions, which overlap
by their halo, decode a shared tile once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial

import numpy as np

from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.slides import mpp
from wsi_nuc.slides.limits import first_attributes
from wsi_nuc.slides.localfile import COPY_AGAIN, LocalFile
from wsi_nuc.slides.pixels import DECODE_ERRORS, WHITE, canvas, clip_to, rows_and_columns
from wsi_nuc.slides.pyramid import select_levels
from wsi_nuc.slides.tiff import Page, Structure, read_structure
from wsi_nuc.types import Box, PixelBlock, SlideInfo, SlideRef, UInt8

JPEG, J2K_RGB = 7, 33005
RGB, YCBCR = 2, 6
EDGE_TILES = 3
CACHE_BYTES = 96 * 2**20
VENDOR_MARKS = ("Philips", "<scn", "<iScan", "iScan", "MedScan", "Ventana", "NDPI", "Hamamatsu")
TileKey = tuple[int, int, int]


class TileCache:
    """The least recently used decoded tiles within a number of bytes, for any number of threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max, self._bytes = max_bytes, 0
        self._tiles: OrderedDict[TileKey, UInt8] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: TileKey) -> UInt8 | None:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: TileKey, pixels: UInt8) -> None:
        with self._lock:
            if key in self._tiles or pixels.nbytes > self._max:
                return
            self._tiles[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > self._max:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._tiles.clear()
            self._bytes = 0


def _colourspaces(page: Page, first_tile: bytes) -> tuple[str, str]:
    """JPEG and output colour space; the TIFF tag decides, except that JFIF data are YCbCr by definition."""
    jfif = first_tile[2:4] == b"\xff\xe0" and first_tile[6:10] == b"JFIF"
    return ("RGB" if page.photometric == RGB and not jfif else "YCBCR"), "RGB"


class JpegTiff:
    """See `SlideSource`. `tiles_decoded` counts decoder calls, for the benchmark of reading twice."""

    def __init__(self, file: LocalFile, info: SlideInfo, pages: tuple[Page, ...]) -> None:
        from imagecodecs import jpeg2k_decode, jpeg8_decode

        self._file, self._info, self._pages = file, info, pages
        self._cache = TileCache(CACHE_BYTES)
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

    def close(self) -> None:
        self._cache.clear()
        self._file.close()

    def read(self, level: int, box: Box) -> PixelBlock:
        inside = clip_to(self._info.levels[level], box)
        rgb = canvas(box, inside)
        missing = None
        for row, column, at_edge in _tiles_of(self._pages[level], inside):
            pixels = self._tile(level, row, column, at_edge)
            whole, window = _overlap(self._pages[level], row, column, inside)
            target = rows_and_columns(window, box)
            if pixels is not None:
                rgb[target] = pixels[rows_and_columns(window, whole)]
                continue
            missing = np.zeros(rgb.shape[:2], np.bool_) if missing is None else missing
            rgb[target], missing[target] = WHITE, True
        return PixelBlock(rgb, missing)

    def _tile(self, level: int, row: int, column: int, keep: bool) -> UInt8 | None:
        """Decoded pixels of one tile, None where the file stores none."""
        pixels = self._cache.get((level, row, column))
        if pixels is not None:
            return pixels
        page = self._pages[level]
        at = row * page.columns + column
        count, offset = int(page.byte_counts[at]), int(page.offsets[at])
        if count == 0 or offset == 0:
            return None
        pixels = self._decode(level, row, column, self._file.read_at(offset, count))
        if keep:
            self._cache.put((level, row, column), pixels)
        return pixels

    def _decode(self, level: int, row: int, column: int, data: bytes) -> UInt8:
        page = self._pages[level]
        problem = ""
        # The decoder fills a truncated JPEG with grey and says nothing, so its end is looked for first.
        if page.compression == JPEG and (data[:2] != b"\xff\xd8" or data.find(b"\xff\xd9", -64) < 0):
            problem = "its JPEG data have no beginning or no end"
        else:
            try:
                pixels: UInt8 = self._decoders[level](data)
                self.tiles_decoded += 1
                if pixels.shape == (page.tile_height, page.tile_width, 3) and pixels.dtype == np.uint8:
                    return pixels
                problem = f"it decodes to {pixels.shape} {pixels.dtype}"
            except DECODE_ERRORS as error:
                problem = str(error) or type(error).__name__
        subject = f"{self._file.name}, level {level}, tile row {row} column {column}"
        raise DamagedPixels(subject, f"is damaged: {problem}", f"{COPY_AGAIN}, or pass --allow-bad-tiles")


def _overlap(page: Page, row: int, column: int, inside: Box) -> tuple[Box, Box]:
    """The whole tile and its part in `inside`, in pixels of the level."""
    x, y = column * page.tile_width, row * page.tile_height
    whole = Box(x, y, x + page.tile_width, y + page.tile_height)
    return whole, whole.intersect(inside)


def _tiles_of(page: Page, inside: Box) -> Iterator[tuple[int, int, bool]]:
    """Row and column of each tile that `inside` touches, and whether a neighbouring box may want it too."""
    if not inside.area:
        return
    first_row, last_row = inside.y0 // page.tile_height, (inside.y1 - 1) // page.tile_height
    first_column, last_column = inside.x0 // page.tile_width, (inside.x1 - 1) // page.tile_width
    for row in range(first_row, last_row + 1):
        near_row = min(row - first_row, last_row - row) < EDGE_TILES
        for column in range(first_column, last_column + 1):
            near_column = min(column - first_column, last_column - column) < EDGE_TILES
            yield row, column, near_row or near_column


def _refusal(page: Page) -> str:
    """Why a page is not one that this reader decodes; empty where it is."""
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
    """The tiled pages that may be levels, level 0 first, or SlideError where the file is not plainly a pyramid."""
    if structure.ndpi:
        raise SlideError(name, "is an NDPI file", "use --reader openslide")
    base = structure.pages[0]
    cause = _refusal(base)
    mark = next((m for m in VENDOR_MARKS if m in base.description[:65536] or m in base.software), "")
    if mark:
        cause = f"is of a vendor with rules of its own ({mark.strip('<')})"
    tiled = [page for page in structure.pages if page.tiled]
    if not cause and sum((p.width, p.height) == (base.width, base.height) for p in tiled) > 1:
        cause = "has several planes of the size of level 0"
    if not cause and any(p.width * p.height > base.width * base.height for p in tiled):
        cause = "has a larger image after the first"
    if cause:
        raise SlideError(name, cause, "use --reader auto")
    return [page for page in tiled if not _refusal(page)]


def stated_resolution(name: str, page: Page) -> tuple[str, mpp.Stated]:
    """Vendor and what the first page says about the resolution; nothing else of its text is kept."""
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
    """Open a tiled JPEG TIFF, or SlideError with the reason why another reader must."""
    file = LocalFile(ref.path)
    structure = read_structure(file)
    pages = choose_pages(ref.path, structure)
    kept, levels = select_levels(ref.path, [(page.width, page.height) for page in pages])
    vendor, stated = stated_resolution(ref.path, structure.pages[0])
    found = mpp.resolve(ref.mpp, stated)
    info = SlideInfo(
        reader="jpegtiff",
        vendor=vendor,
        width=levels[0].width,
        height=levels[0].height,
        levels=levels,
        mpp=found.value,
        mpp_source=found.source,
        mpp_problem=found.problem,
        objective=mpp.objective_power(stated.objective),
    )
    return JpegTiff(file, info, tuple(pages[i] for i in kept))
