"""The structure of a TIFF file, read once and checked against the bytes that are there.

libtiff and tifffile trust headers to different degrees. Every TIFF is checked here before either of them sees it,
so that truncation, IFD loops and impossible sizes end the same way: quickly, with a reason. Tile offsets stay
numpy arrays, because a slide may have a million tiles.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.limits import MAX_XML_BYTES, NOT_A_SLIDE, check_size, check_tile
from wsi_nuc.slides.localfile import COPY_AGAIN, RandomAccess
from wsi_nuc.types import Int64

MAX_PAGES = 4096
MAX_ENTRIES = 4096
MAGIC = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
TYPES = {1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4", 11: "f4"}
TYPES |= {12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
RATIONALS = (5, 10)
NDPI_TAG = 65420
SUB_IFDS = 330
TEXTS = {270, 305, 700}
KEPT = TEXTS | {254, 256, 257, 258, 259, 262, 273, 277, 279, 282, 283, 284, 296, 322, 323, 324, 325, SUB_IFDS, 347}
KEPT |= {NDPI_TAG}

Tags = dict[int, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Page:
    """An image file directory: the values of its tags, with sizes in pixels."""

    width: int
    height: int
    tile_width: int
    """0 if the page has strips."""
    tile_height: int
    compression: int
    photometric: int
    """-1 if the tag is absent."""
    bits: tuple[int, ...]
    """Per sample, of at most eight samples."""
    samples: int
    """Per pixel."""
    planar: int
    """2 if each sample has tiles of its own, else 1."""
    offsets: Int64
    """Where the data of each tile or strip begin in the file."""
    byte_counts: Int64
    """How many bytes these data have; 0 for a tile that is not stored."""
    jpeg_tables: bytes
    description: str
    """Only searched, never shown."""
    software: str
    """Only searched, never shown."""
    xmp: str
    """Only searched, never shown."""
    resolution: tuple[float, float, int]
    """Pixels per unit in x and y, and the tag of the unit."""

    @property
    def tiled(self) -> bool:
        return self.tile_width > 0

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)

    @property
    def whole_bytes(self) -> int:
        """Memory to decode the page at once: for the page, with its strips at first and its RGB later."""
        stored = self.samples * -(-max(self.bits, default=8) // 8)
        return self.width * self.height * (stored + max(stored, 3))


@dataclass(frozen=True, slots=True)
class Structure:
    """The pages of a TIFF file."""

    pages: tuple[Page, ...]
    """In the order of the main chain, with the sub-IFDs of a page right after it."""
    ndpi: bool
    """Whether it is an NDPI file, which has rules of its own; one past 4 GiB has no `pages` here."""


class _Walker:
    """Reads directories; every offset is checked before it is followed."""

    def __init__(self, file: RandomAccess) -> None:
        self.file = file
        head = file.read_at(0, 16)
        if head[:4] not in MAGIC:
            raise SlideError(file.name, "is not a TIFF file", NOT_A_SLIDE)
        self.order, self.big = MAGIC[head[:4]]
        if len(head) < (16 if self.big else 8):
            raise self.truncated(16)
        self.first = struct.unpack(self.order + ("Q" if self.big else "I"), head[8:] if self.big else head[4:8])[0]
        self.seen: set[int] = set()
        # All directories of a small file may point at the same large array, so all reads share a limit.
        self.budget = 2 * file.size + 65536

    def truncated(self, needed: int) -> SlideError:
        return SlideError(
            self.file.name, f"is truncated: it needs {needed} bytes and has {self.file.size}", COPY_AGAIN
        )

    def take(self, offset: int, count: int) -> bytes:
        if offset + count > self.file.size:
            raise self.truncated(offset + count)
        self.budget -= count
        if self.budget < 0:
            raise SlideError(self.file.name, "its TIFF directories share and repeat their data", NOT_A_SLIDE)
        data = self.file.read_at(offset, count)
        if len(data) != count:
            raise self.truncated(offset + count)
        return data

    def directory(self, offset: int) -> tuple[Tags, int]:
        """The tags at `offset` and the offset of the next directory, 0 at the end."""
        if offset in self.seen or len(self.seen) >= MAX_PAGES:
            raise SlideError(self.file.name, f"its TIFF directories run in a loop at byte {offset}", NOT_A_SLIDE)
        self.seen.add(offset)
        head, link, entry = ("Q", "Q", 20) if self.big else ("H", "I", 12)
        head_size, link_size = struct.calcsize("=" + head), struct.calcsize("=" + link)
        count = struct.unpack(self.order + head, self.take(offset, head_size))[0]
        if not 0 < count <= MAX_ENTRIES:
            raise SlideError(self.file.name, f"a TIFF directory claims {count} entries", NOT_A_SLIDE)
        data = self.take(offset + head_size, count * entry + link_size)
        tags: Tags = {}
        for at in range(0, count * entry, entry):
            tag, kind = struct.unpack(self.order + "HH", data[at : at + 4])
            if kind in TYPES:
                tags[tag] = self.values(tag, kind, data[at + 4 : at + entry])
        return tags, struct.unpack(self.order + link, data[count * entry :])[0]

    def values(self, tag: int, kind: int, field: bytes) -> npt.NDArray[Any]:
        word = "Q" if self.big else "I"
        half = len(field) // 2
        count = struct.unpack(self.order + word, field[:half])[0] * (2 if kind in RATIONALS else 1)
        dtype = np.dtype(self.order + TYPES[kind])
        size = count * dtype.itemsize
        if size <= half:
            return np.frombuffer(field[half : half + size], dtype)
        offset = struct.unpack(self.order + word, field[half:])[0]
        if offset + size > self.file.size:
            raise self.truncated(offset + size)
        if tag not in KEPT:
            return np.empty(0, dtype)
        if tag in TEXTS and size > MAX_XML_BYTES:
            raise SlideError(self.file.name, f"its description (tag {tag}) has {size} bytes", NOT_A_SLIDE)
        return np.frombuffer(self.take(offset, size), dtype)


def _int(tags: Tags, tag: int, default: int) -> int:
    return int(tags[tag][0]) if tag in tags and tags[tag].size else default


def _ratio(tags: Tags, tag: int) -> float:
    pair = tags.get(tag, np.zeros(0))
    return float(pair[0]) / float(pair[1]) if pair.size >= 2 and pair[1] else 0.0


def _text(tags: Tags, tag: int) -> str:
    data: bytes = tags[tag].tobytes() if tag in tags else b""
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def _int64(tags: Tags, *names: int) -> Int64:
    arrays = [tags[name] for name in names if name in tags]
    return arrays[0].astype(np.int64) if arrays else np.zeros(0, np.int64)


def _page(tags: Tags) -> Page:
    return Page(
        width=_int(tags, 256, 0),
        height=_int(tags, 257, 0),
        tile_width=_int(tags, 322, 0),
        tile_height=_int(tags, 323, 0),
        compression=_int(tags, 259, 1),
        photometric=_int(tags, 262, -1),
        bits=tuple(int(bits) for bits in tags[258][:8]) if 258 in tags else (1,),
        samples=_int(tags, 277, 1),
        planar=_int(tags, 284, 1),
        offsets=_int64(tags, 324, 273),
        byte_counts=_int64(tags, 325, 279),
        jpeg_tables=tags[347].tobytes() if 347 in tags else b"",
        description=_text(tags, 270),
        software=_text(tags, 305),
        xmp=_text(tags, 700),
        resolution=(_ratio(tags, 282), _ratio(tags, 283), _int(tags, 296, 2)),
    )


def _check_page(name: str, page: Page, size: int) -> None:
    check_size(name, page.width, page.height)
    if page.tiled:
        check_tile(name, (page.tile_width, page.tile_height), (page.width, page.height))
        planes = page.samples if page.planar == 2 else 1
        claimed = page.columns * page.rows * planes
        if min(len(page.offsets), len(page.byte_counts)) < claimed:
            listed = min(len(page.offsets), len(page.byte_counts))
            cause = f"{page.width} x {page.height} px need {claimed} tiles and the file lists {listed}"
            raise SlideError(name, cause, NOT_A_SLIDE)
    count = min(len(page.offsets), len(page.byte_counts))
    ends = np.where(page.byte_counts[:count] > 0, page.offsets[:count] + page.byte_counts[:count], 0)
    if count and (int(ends.max()) > size or int(ends.min()) < 0):
        cause = f"is truncated: pixel data end at byte {int(ends.max())} and the file has {size}"
        raise SlideError(name, cause, COPY_AGAIN)


def read_structure(file: RandomAccess) -> Structure:
    """Every page of a TIFF file; SlideError that says what is wrong with a broken one."""
    walker = _Walker(file)
    if not walker.big and file.size >= 2**32:
        # Only NDPI stretches classic TIFF past 4 GiB, by rules of its own that OpenSlide knows.
        return Structure((), ndpi=True)
    pages: list[Page] = []
    at, ndpi = walker.first, False
    while at:
        tags, following = walker.directory(at)
        ndpi = ndpi or NDPI_TAG in tags
        pages.append(_page(tags))
        pages += [_page(walker.directory(int(sub))[0]) for sub in _int64(tags, SUB_IFDS)]
        at = following
    if not pages:
        raise SlideError(file.name, "is a TIFF file without a page", NOT_A_SLIDE)
    for page in pages:
        _check_page(file.name, page, file.size)
    return Structure(tuple(pages), ndpi)
