"""The header of a DICOM file, walked once and checked before libdicom sees it.

libdicom believes what a header says: it allocates by the stated number of frames, recurses as deep as sequences
are nested, and crashes where a sparse image has no list of its frames. So every file is checked here before
libdicom parses it. Of its values, only the numbers that say where pixels are stay.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.limits import MAX_DEPTH, NOT_A_SLIDE, check_size, check_tile, check_tiles
from wsi_nuc.slides.localfile import COPY_AGAIN, LocalFile

MAGIC, MAGIC_AT = b"DICM", 128
SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
IMPLICIT_VR = "1.2.840.10008.1.2"
GROUP_LENGTH, CLASS, SYNTAX = 0x00020000, 0x00020002, 0x00020010
KIND, SERIES, LAYOUT, FRAMES = 0x00080008, 0x0020000E, 0x00209311, 0x00280008
ROWS, COLUMNS, WIDTH, HEIGHT = 0x00280010, 0x00280011, 0x00480006, 0x00480007
KEPT = {GROUP_LENGTH, CLASS, SYNTAX, KIND, SERIES, LAYOUT, FRAMES, ROWS, COLUMNS, WIDTH, HEIGHT}
PER_FRAME = 0x52009230
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
ITEM, ITEM_END, SEQUENCE_END, PADDING = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFCFFFC
UNDEFINED = 0xFFFFFFFF
BYTES_ONLY = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"}
LONG_FORM = BYTES_ONLY | {b"SQ", b"SV", b"UC", b"UR", b"UT", b"UV"}
SHORT_FORM = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH"}
SHORT_FORM |= {b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
# Of text and numbers: libdicom and OpenSlide need about a hundred times as much memory for them. A slide's header
# has some 10 kB.
MAX_KEPT_BYTES = 2 * 2**20
# Each frame has at least the head of an item.
SMALLEST_FRAME = 8
WINDOW_BYTES = 2**18
ELEMENT_HEAD, LONG_LENGTH, ITEM_HEAD = struct.Struct("<HH2sH"), struct.Struct("<I"), struct.Struct("<HHI")


@dataclass(frozen=True, slots=True)
class Header:
    """What one DICOM file says of itself."""

    series: str | None = None
    """Identifier of its series; None if it is not a whole-slide image, "" if its header is too broken to tell."""
    level: bool = False
    """Whether it is a level of the pyramid, and not a label or an overview."""
    sparse: bool = False
    """Whether frames may be left out."""
    listed: bool = False
    """Whether it lists the positions of its frames."""
    frames: int = 0
    """The number of frames that it states."""
    tile: tuple[int, int] = (0, 0)
    """Width and height of a frame, in pixels."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the whole image, in pixels."""
    bytes: int = 0
    """The size of the file."""
    problem: str = ""
    """Why it cannot be read; empty if it can."""
    hostile: bool = False
    """Whether libdicom must not even see it beside another slide."""


class _Unusable(Exception):
    """The header ends here; `hostile` if libdicom must not see it."""

    def __init__(self, cause: str, hostile: bool = False) -> None:
        super().__init__(cause)
        self.hostile = hostile


class _Walker:
    """Follows the elements exactly as libdicom does, but with limits on their depth and their bytes."""

    def __init__(self, file: LocalFile) -> None:
        self.file, self.at, self.kept = file, MAGIC_AT + len(MAGIC), 0
        self._window, self._from = b"", 0

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next values, unpacked."""
        start, count = self.at - self._from, layout.size
        if not 0 <= start <= len(self._window) - count:
            self._window, self._from = self.file.read_at(self.at, max(count, WINDOW_BYTES)), self.at
            start = 0
        self.at += count
        if len(self._window) < start + count:
            raise self.truncated(self.at)
        return layout.unpack_from(self._window, start)

    def truncated(self, needed: int) -> _Unusable:
        return _Unusable(f"is truncated: it needs {needed} bytes and has {self.file.size}")

    def element(self) -> tuple[int, bytes, int]:
        """Tag, value representation and length of the next element."""
        group, number, kind, length = self.take(ELEMENT_HEAD)
        tag = group << 16 | number
        if tag == ITEM_END:
            return tag, b"", 0
        if kind in LONG_FORM:
            length = self.take(LONG_LENGTH)[0]
        elif kind not in SHORT_FORM:
            raise _Unusable(f"its DICOM header has {tag:08X} with value representation {kind!r}")
        return tag, kind, length

    def body(self, tag: int, kind: bytes, length: int, depth: int = 0) -> bytes:
        """Step over a value, and return it if it is a wanted one."""
        if kind == b"SQ":
            self.sequence(length, depth, tag == PER_FRAME)
            return b""
        if self.at + length > self.file.size:
            raise self.truncated(self.at + length)
        if kind not in BYTES_ONLY:
            self.keep(length)
        if depth == 0 and tag in KEPT:
            return bytes(self.take(struct.Struct(f"{length}s"))[0])
        self.at += length
        return b""

    def keep(self, count: int) -> None:
        self.kept += count
        if self.kept > MAX_KEPT_BYTES:
            raise _Unusable(f"its DICOM header has over {MAX_KEPT_BYTES} bytes of text and numbers", hostile=True)

    def sequence(self, length: int, depth: int, uncounted: bool) -> None:
        if depth >= MAX_DEPTH:
            raise _Unusable(f"its DICOM header is nested deeper than {MAX_DEPTH}", hostile=True)
        before, end = self.kept, math.inf if length == UNDEFINED else self.at + length
        while self.at < end:
            group, number, size = self.take(ITEM_HEAD)
            tag = group << 16 | number
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise _Unusable(f"its DICOM header has {tag:08X} where an item belongs")
            self.item(size, depth)
            # libdicom reads the positions of frames and does not keep them.
            self.kept = before if uncounted else self.kept
        self.keep(0)

    def item(self, length: int, depth: int) -> None:
        end = math.inf if length == UNDEFINED else self.at + length
        while self.at < end:
            tag, kind, size = self.element()
            self.keep(8)
            if tag == ITEM_END:
                break
            self.body(tag, kind, size, depth + 1)


def is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def header_of(path: Path) -> Header:
    """What the header of a DICOM file says. A broken header has a `problem` and raises nothing."""
    status = path.stat()
    return _header(
        str(path), (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


@lru_cache(4096)
def _header(path: str, _: tuple[int, ...]) -> Header:
    file, values = LocalFile(path), dict[int, bytes]()
    problem, hostile = "", False
    try:
        _walk(_Walker(file), values)
    except _Unusable as error:
        problem, hostile = str(error), error.hostile
    finally:
        file.close()
    if CLASS in values and _text(values, CLASS) != SLIDE_CLASS:
        return Header(problem="is not a whole-slide image by its DICOM class")
    kind, size = values.get(KIND, b"").split(b"\\"), file.size
    return Header(
        series=_text(values, SERIES),
        level=len(kind) > 2 and kind[2].strip() == b"VOLUME",
        sparse=_text(values, LAYOUT) in ("TILED_SPARSE", "3D"),
        listed=PER_FRAME in values,
        frames=_number(values, FRAMES),
        tile=(_number(values, COLUMNS), _number(values, ROWS)),
        size=(_number(values, WIDTH), _number(values, HEIGHT)),
        bytes=size,
        problem=problem,
        hostile=hostile,
    )


def _walk(walker: _Walker, values: dict[int, bytes]) -> None:
    """Collect the wanted values up to the pixels: the group of the file first, then the data set."""
    tag, kind, length = walker.element()
    values[tag] = walker.body(tag, kind, length)
    if tag != GROUP_LENGTH or length != 4:
        raise _Unusable("its DICOM header does not begin with its length")
    end = walker.at + struct.unpack("<I", values[tag])[0]
    while walker.at < end:
        tag, kind, length = walker.element()
        values.setdefault(tag, walker.body(tag, kind, length))
    if _text(values, CLASS) != SLIDE_CLASS:
        return
    if _text(values, SYNTAX) == IMPLICIT_VR:
        raise _Unusable("is DICOM with implicit value representation, which is not read", hostile=True)
    while walker.at < walker.file.size:
        tag, kind, length = walker.element()
        if tag in (*PIXELS, PADDING):
            if length != UNDEFINED:
                walker.body(tag, b"OB", length)
            return
        values.setdefault(tag, walker.body(tag, kind, length))


def _text(values: dict[int, bytes], tag: int) -> str:
    return values.get(tag, b"").split(b"\0")[0].split(b"\\")[0].decode("latin-1").strip()


def _number(values: dict[int, bytes], tag: int) -> int:
    """A whole number, in binary or as text; 0 where it is neither."""
    data = values.get(tag, b"")
    if tag != FRAMES:
        return int.from_bytes(data, "little") if len(data) <= 4 else 0
    text = _text(values, tag)
    return int(text) if text.isascii() and text.isdigit() else 0


def check_series(name: str, series: Iterable[Path]) -> None:
    """Refuse a slide of these files if their headers claim more than the files can hold."""
    levels: dict[tuple[int, int], list[Header]] = {}
    for path in series:
        header = header_of(path)
        if header.problem:
            raise SlideError(path, header.problem, COPY_AGAIN)
        if header.level:
            _check_level(path, header)
            levels.setdefault(header.size, []).append(header)
    for size, headers in levels.items():
        tiles, frames = check_tiles(name, headers[0].tile, size), sum(header.frames for header in headers)
        if not any(header.sparse or header.listed for header in headers) and frames < tiles:
            cause = f"{size[0]} x {size[1]} px need {tiles} frames and its DICOM header states {frames}"
            raise SlideError(name, cause, NOT_A_SLIDE)


def _check_level(path: Path, header: Header) -> None:
    check_size(str(path), *header.size)
    check_tile(str(path), header.tile, header.size)
    cause = ""
    if not 0 < header.frames <= header.bytes // SMALLEST_FRAME:
        cause = f"its DICOM header states {header.frames} frames and the file has {header.bytes} bytes"
    elif header.sparse and not header.listed:
        cause = "its DICOM header says that it is sparse and does not list its frames"
    if cause:
        raise SlideError(path, cause, NOT_A_SLIDE)
