"""What the head of a JPEG file or tile says, to judge what it would take to decode it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.limits import NOT_A_SLIDE
from wsi_nuc.slides.localfile import RandomAccess

FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = (0xC0, 0xC1)
RESTARTS, SCAN = 0xDD, 0xDA
JPEG = b"\xff\xd8"
# The start of a codestream, then the start of its sizes. In a JP2 file, other boxes come before.
JPEG_2000, JP2_HEAD_BYTES = b"\xff\x4f\xff\x51", 4096
BLOCK_PX = 8
MAX_SEGMENTS = 4096


@dataclass(frozen=True, slots=True)
class JpegHead:
    """The head of a JPEG: sizes are in pixels."""

    width: int
    height: int
    components: int
    """Colour channels: 1 for grey, 3 for YCbCr or RGB."""
    unit: tuple[int, int]
    """Width and height of the smallest area that is coded together."""
    restarts: int
    """How many units lie between two restart markers; 0 without such markers."""
    in_pieces: bool
    """Whether it comes in several scans, so that the decoder holds coefficients of the whole image."""

    @property
    def units(self) -> tuple[int, int]:
        """The number of units in a row and in a column."""
        return -(-self.width // self.unit[0]), -(-self.height // self.unit[1])


def jpeg_head(file: RandomAccess) -> JpegHead:
    """The head up to the first scan; SlideError if there is no scan."""
    at, frame, kind, restarts = 2, b"", 0, 0
    for _ in range(MAX_SEGMENTS):
        head = file.read_at(at, 4)
        if len(head) < 4 or head[0] != 0xFF:
            break
        if head[1] == 0xFF:
            at += 1
            continue
        size = int.from_bytes(head[2:], "big")
        if head[1] in FRAMES:
            kind, frame = head[1], file.read_at(at + 4, size)
        elif head[1] == RESTARTS:
            restarts = int.from_bytes(file.read_at(at + 4, 2), "big")
        elif head[1] == SCAN and len(frame) >= 9:
            in_pieces = kind not in SEQUENTIAL or file.read_at(at + 4, 1)[:1] != frame[5:6]
            return _head(frame, restarts, in_pieces)
        at += 2 + size
    raise SlideError(file.name, "has no usable JPEG header", NOT_A_SLIDE)


class _InMemory:
    def __init__(self, data: bytes) -> None:
        self._data, self.name, self.size = data, "tile", len(data)

    def read_at(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> None:
        """Nothing is open."""


def claimed_size(tile: bytes) -> tuple[int, int] | None:
    """Width and height that an encoded JPEG or JPEG 2000 states; None for anything else."""
    if tile[:2] == JPEG:
        head = jpeg_head(_InMemory(tile))
        return head.width, head.height
    at = tile.find(JPEG_2000, 0, JP2_HEAD_BYTES)
    if at < 0 or len(tile) < at + 24:
        return None
    right, bottom, left, top = struct.unpack(">4I", tile[at + 8 : at + 24])
    return right - left, bottom - top


def _head(frame: bytes, restarts: int, in_pieces: bool) -> JpegHead:
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    factors = frame[7 : 6 + 3 * frame[5] : 3] or b"\x11"
    unit = (
        BLOCK_PX * max(1, *(byte >> 4 for byte in factors)),
        BLOCK_PX * max(1, *(byte & 15 for byte in factors)),
    )
    return JpegHead(width, height, frame[5], unit, restarts, in_pieces)
