"""Everything that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, Philips, DICOM and more.

Two of its habits are handled here. A handle that failed once repeats its error for ever, so it is reopened.
And `read_region` takes level-0 coordinates. Where a level's downsample is not whole, most pixels of the level do
not start at a whole level-0 pixel, and OpenSlide would interpolate between pixels, differently for each box. Such
levels are read in fixed blocks, so that a pixel has the same value in every box. A block starts at most half a
level-0 pixel off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import SlideError
from wsi_nuc.slides import mpp
from wsi_nuc.slides.files import contents
from wsi_nuc.slides.localfile import COPY_AGAIN, LocalFile, refuse_url
from wsi_nuc.slides.pixels import USUAL_BLOCK_PX, clip_to, damaged, over_white, place, rows_and_columns
from wsi_nuc.slides.pyramid import select_levels
from wsi_nuc.slides.tiff import MAGIC
from wsi_nuc.types import Bool, Box, PixelBlock, SlideInfo, SlideRef, UInt8

CHUNK_PX = 2048
FIXED_BLOCK_PX = 512
# OpenSlide passes on the TIFF resolution tags of these vendors as microns per pixel, even print resolutions.
TAG_VENDORS = ("generic-tiff",)
# Vendors whose slides are one file. Hamamatsu's are one file (NDPI, a TIFF) or several.
ONE_FILE = {"aperio", "generic-tiff", "leica", "philips", "sakura", "trestle", "ventana", "zeiss"}


class OpenSlideSource:
    """See `SlideSource`."""

    def __init__(self, path: str, reopen: Callable[[], Any], info: SlideInfo, kept: list[int]) -> None:
        self._path = path
        self._reopen, self._info, self._kept = reopen, info, kept
        self._handle = reopen()
        self._lock = threading.Lock()

    @property
    def info(self) -> SlideInfo:
        return self._info

    def block_px(self, level: int) -> tuple[int, int]:
        stored = self._kept[level]
        if not self._factor(stored).is_integer():
            return FIXED_BLOCK_PX, FIXED_BLOCK_PX
        properties, name = self._handle.properties, f"openslide.level[{stored}].tile"
        width, height = (properties.get(f"{name}-{edge}", "") for edge in ("width", "height"))
        return (int(width), int(height)) if width.isdigit() and height.isdigit() else USUAL_BLOCK_PX

    def _factor(self, stored: int) -> float:
        return float(self._handle.level_downsamples[stored])

    def close(self) -> None:
        self._handle.close()

    def read(self, level: int, box: Box) -> PixelBlock:
        inside = clip_to(self._info.levels[level], box)
        stored = self._kept[level]
        blocks = _chunks if self._factor(stored).is_integer() else _fixed_blocks
        whole = Box(0, 0, *self._handle.level_dimensions[stored])
        rgb = np.empty((inside.height, inside.width, 3), np.uint8)
        missing: Bool = np.zeros(rgb.shape[:2], np.bool_)
        for block in blocks(inside):
            colours, holes = self._fetch(level, block.intersect(whole))
            wanted = block.intersect(inside)
            target, source = rows_and_columns(wanted, inside), rows_and_columns(wanted, block)
            rgb[target], missing[target] = colours[source], holes[source]
        return place(box, inside, rgb, missing)

    def _fetch(self, level: int, box: Box) -> tuple[UInt8, npt.NDArray[np.bool_]]:
        from openslide import OpenSlideError

        handle, stored = self._handle, self._kept[level]
        factor = handle.level_downsamples[stored]
        location = (round(box.x0 * factor), round(box.y0 * factor))
        try:
            rgba = np.asarray(handle.read_region(location, stored, (box.width, box.height)))
        except OpenSlideError as error:
            self._replace(handle)
            raise damaged(self._path, level, box, error) from error
        return over_white(rgba), rgba[..., 3] == 0

    def _replace(self, broken: Any) -> None:
        """A fresh handle, opened once for all threads that met the same error."""
        with self._lock:
            if self._handle is broken:
                self._handle = self._reopen()


def _chunks(box: Box) -> Iterator[Box]:
    """Parts of `box`, small enough to bound the RGBA copy of one call."""
    for y in range(box.y0, box.y1, CHUNK_PX):
        for x in range(box.x0, box.x1, CHUNK_PX):
            yield Box(x, y, min(x + CHUNK_PX, box.x1), min(y + CHUNK_PX, box.y1))


def _fixed_blocks(box: Box) -> Iterator[Box]:
    """The blocks of a fixed grid that touch `box`, whole."""
    step = FIXED_BLOCK_PX
    for y in range(box.y0 // step * step, box.y1, step):
        for x in range(box.x0 // step * step, box.x1, step):
            yield Box(x, y, x + step, y + step)


def _stated(properties: Mapping[str, str]) -> mpp.Stated:
    """What the properties say of the resolution. The other properties hold free text and are not looked up."""
    pair = properties.get("openslide.mpp-x", ""), properties.get("openslide.mpp-y", "")
    objective = properties.get("openslide.objective-power", "")
    if properties.get("openslide.vendor") in TAG_VENDORS:
        x, y = (mpp.number(text) if text else 0.0 for text in pair)
        return mpp.Stated(tags_um=(x, y), objective=objective)
    if raw := properties.get("aperio.MPP"):
        # OpenSlide drops or repairs what it cannot parse; the vendor's own field tells which it was.
        pair = (raw, raw)
    return mpp.Stated(pair, objective=objective)


def _check_vendor(path: str, rule: str, vendor: str) -> None:
    """Refuse what OpenSlide takes for another format than `contents` does: it might read files without a hash."""
    if vendor in ONE_FILE or vendor == rule:
        return
    with closing(LocalFile(path)) as file:
        if vendor == "hamamatsu" and file.read_at(0, 4) in MAGIC:
            return
    cause = f"OpenSlide reads it as {vendor!r}, and which files such a slide consists of is not known here"
    raise SlideError(path, cause, "convert it to a tiled TIFF")


def open_slide(ref: SlideRef) -> OpenSlideSource:
    """Open a slide with OpenSlide; SlideError with OpenSlide's reason if it cannot."""
    import openslide

    refuse_url(ref.path)
    consists = contents(ref.path)
    path = str(consists.files[0]) if Path(ref.path).is_dir() else ref.path

    def reopen() -> Any:
        try:
            return openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(path, f"OpenSlide: {error}", COPY_AGAIN) from error

    probe = reopen()
    kept, levels = select_levels(path, probe.level_dimensions)
    vendor = probe.properties.get("openslide.vendor", "")
    _check_vendor(path, consists.rule, vendor)
    info = mpp.describe("openslide", vendor, levels, ref.mpp, _stated(probe.properties))
    probe.close()
    return OpenSlideSource(path, reopen, info, kept)
