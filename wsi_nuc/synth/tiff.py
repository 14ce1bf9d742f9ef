"""A streaming TIFF writer: tiles go to the file as they come, directories at the end.

Many tiles may share the same bytes in the file, which makes a mostly blank slide small.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

ASCII, SHORT, LONG, RATIONAL, LONG8 = 2, 3, 4, 5, 16
_FORMATS = {SHORT: "<u2", LONG: "<u4", LONG8: "<u8"}

Entry = tuple[int, int, int, bytes]


def entry(tag: int, kind: int, values: Sequence[int] | npt.NDArray[np.uint64]) -> Entry:
    packed = np.asarray(values).astype(_FORMATS[kind])
    return tag, kind, len(packed), packed.tobytes()


def text(tag: int, value: str) -> Entry:
    raw = value.encode() + b"\0"
    return tag, ASCII, len(raw), raw


def rational(tag: int, value: float) -> Entry:
    # The largest denominator with a numerator within 32 bits keeps the most digits.
    denominator = 10 ** max(0, min(6, 9 - len(str(int(value)))))
    return tag, RATIONAL, 1, struct.pack("<II", round(value * denominator), denominator)


@dataclass
class TiledImage:
    """A directory of JPEG tiles."""

    width: int
    height: int
    tile_px: int
    """Width and height of a tile."""
    offset: npt.NDArray[np.uint64]
    """Rows x columns: where each tile begins in the file; at first, the shared blank tile."""
    count: npt.NDArray[np.uint64]
    """Rows x columns: the bytes of each tile; at first, of the shared blank tile."""
    entries: list[Entry] = field(default_factory=list)
    """Further tags."""


class TiffFile:
    """Header, tiles, directories, in this order. `big` chooses BigTIFF."""

    def __init__(self, stream: BinaryIO, big: bool) -> None:
        self.big = big
        self._stream = stream
        self._position = 0
        self._append(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0))

    def add(self, data: bytes) -> tuple[int, int]:
        """Write data, and return their offset and length."""
        return self._append(data), len(data)

    def image(self, width: int, height: int, tile_px: int, blank: tuple[int, int]) -> TiledImage:
        shape = (-(-height // tile_px), -(-width // tile_px))
        offset, count = (np.full(shape, value, np.uint64) for value in blank)
        return TiledImage(width, height, tile_px, offset, count)

    def finish(self, main: Sequence[list[Entry]], sub: Sequence[list[Entry]] = ()) -> None:
        """Write the chain of `main` directories. `sub` become SubIFDs of the first."""
        kind = LONG8 if self.big else LONG
        children = [self._directory(entries, 0) for entries in sub]
        after = 0
        # The last comes first, so that each directory knows where the next one lies.
        for place, entries in reversed(list(enumerate(main))):
            extra = [entry(330, kind, children)] if children and place == 0 else []
            after = self._directory([*entries, *extra], after)
        self._stream.seek(8 if self.big else 4)
        self._stream.write(struct.pack("<Q" if self.big else "<I", after))

    def tiled_entries(self, image: TiledImage, subsampling: tuple[int, int]) -> list[Entry]:
        kind = LONG8 if self.big else LONG
        return [
            entry(256, LONG, [image.width]),
            entry(257, LONG, [image.height]),
            *jpeg_entries(subsampling),
            entry(322, LONG, [image.tile_px]),
            entry(323, LONG, [image.tile_px]),
            entry(324, kind, image.offset.ravel()),
            entry(325, kind, image.count.ravel()),
            *image.entries,
        ]

    def stripped_entries(self, image: TiledImage, subsampling: tuple[int, int]) -> list[Entry]:
        """For an image with a single tile, which becomes a strip."""
        kind = LONG8 if self.big else LONG
        return [
            entry(256, LONG, [image.width]),
            entry(257, LONG, [image.height]),
            *jpeg_entries(subsampling),
            entry(273, kind, image.offset.ravel()),
            entry(278, LONG, [image.height]),
            entry(279, kind, image.count.ravel()),
            *image.entries,
        ]

    def _append(self, data: bytes) -> int:
        # Offsets have to be even.
        position = self._position
        padded = data + b"\0" * (len(data) % 2)
        self._stream.write(padded)
        self._position += len(padded)
        return position

    def _directory(self, entries: Sequence[Entry], following: int) -> int:
        inline, number = (8, "<Q") if self.big else (4, "<I")
        rows = []
        for tag, kind, count, raw in sorted(entries):
            value = raw if len(raw) <= inline else struct.pack(number, self._append(raw))
            rows.append(struct.pack("<HH", tag, kind) + struct.pack(number, count) + value.ljust(inline, b"\0"))
        head = struct.pack("<Q" if self.big else "<H", len(rows))
        return self._append(head + b"".join(rows) + struct.pack(number, following))


def jpeg_entries(subsampling: tuple[int, int]) -> list[Entry]:
    """The entries that tiled and stripped directories share: 8-bit YCbCr JPEG, interleaved."""
    return [
        entry(258, SHORT, [8, 8, 8]),
        entry(259, SHORT, [7]),
        entry(262, SHORT, [6]),
        entry(277, SHORT, [3]),
        entry(284, SHORT, [1]),
        entry(530, SHORT, subsampling),
    ]
