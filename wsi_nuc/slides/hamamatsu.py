"""Hamamatsu's VMS and VMU: a text index names the files beside it that hold the pixels.

OpenSlide allocates memory by the sizes that these files state, before it looks for their data. So the sizes are
compared with the data first.
"""

from __future__ import annotations

import math
import struct
from contextlib import closing
from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.jpeghead import jpeg_head
from wsi_nuc.slides.keyfile import entries_of, named_files, numbers_of
from wsi_nuc.slides.limits import NOT_A_SLIDE, check_size, check_tile
from wsi_nuc.slides.localfile import COPY_AGAIN, LocalFile

GROUPS = (b"[Virtual Microscope Specimen]", b"[Uncompressed Virtual Microscope Specimen]")
# OpenSlide does not read a larger index.
INDEX_BYTES = 64 * 2**10
IMAGES, OTHERS = r"ImageFile.*|MapFile", r"MacroImage|OptimisationFile"
NGR_MAGIC, NGR_ROWS, NGR_PIXEL_BYTES = b"GN", 64, 6
RESTART_BYTES = 2


def is_index(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(256)
        # Pictures have zero bytes near their beginning; text has none.
        text = head if b"\0" in head else head + file.read(INDEX_BYTES)
    return any(group in text for group in GROUPS)


def files_of(slide: Path) -> list[Path]:
    """The index and all files that it names."""
    return [slide, *named_files(slide, entries_of(slide, INDEX_BYTES), f"{IMAGES}|{OTHERS}")]


def check_images(slide: Path) -> None:
    """Refuse a slide whose files claim more than they hold, or that names fewer files than it needs."""
    entries = entries_of(slide, INDEX_BYTES)
    images = named_files(slide, entries, IMAGES)
    numbers = numbers_of(entries, "NoJpegColumns|NoJpegRows")
    if math.prod(numbers) >= len(images) or len(set(images)) < len(images):
        cause = (
            f"states {' x '.join(map(str, numbers))} images and names {len(set(images))} files, its map included"
        )
        raise SlideError(slide, cause, COPY_AGAIN)
    for image in images:
        with closing(LocalFile(str(image))) as file:
            if file.read_at(0, 2) == NGR_MAGIC:
                _check_ngr(file)
            else:
                _check_jpeg(file)


def _check_ngr(file: LocalFile) -> None:
    head = file.read_at(0, 28)
    if len(head) < 28:
        raise SlideError(file.name, "is truncated", COPY_AGAIN)
    width, height, column = struct.unpack_from("<iii", head, 4)
    start = struct.unpack_from("<i", head, 24)[0]
    check_size(file.name, width, height)
    check_tile(file.name, (column, min(height, NGR_ROWS)), (width, height))
    needed = start + width * height * NGR_PIXEL_BYTES
    if start < 28 or needed > file.size:
        raise SlideError(file.name, f"is truncated: it needs {needed} bytes and has {file.size}", COPY_AGAIN)


def _check_jpeg(file: LocalFile) -> None:
    head = jpeg_head(file)
    check_size(file.name, head.width, head.height)
    if head.in_pieces or not head.restarts:
        raise SlideError(file.name, "is a JPEG file without restart markers, or of several scans", NOT_A_SLIDE)
    needed = RESTART_BYTES * (math.prod(head.units) // head.restarts)
    if needed > file.size:
        cause = f"is truncated: {head.width} x {head.height} px need {needed} bytes and it has {file.size}"
        raise SlideError(file.name, cause, COPY_AGAIN)
