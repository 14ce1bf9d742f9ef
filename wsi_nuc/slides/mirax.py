"""3DHISTECH's MIRAX: a small picture with the name of the slide, and a folder of that name with everything else.

OpenSlide allocates memory by the numbers of images and tiles that the indices state, so these are checked first.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.keyfile import Entries, entries_of, named_files, numbers_of
from wsi_nuc.slides.limits import NOT_A_SLIDE, check_tile

INDEX, INDEX_BYTES, NAMES = "Slidedat.ini", 2**20, r"INDEXFILE|FILE_\d.*"
VERSION_BYTES, IMAGE_BYTES = 5, 16
# A slide of 100,000 x 200,000 px has 400,000.
MAX_IMAGES = 2**22
# An image of a small level is cut into a tile for each image of level 0 in it: in all, ten times as many tiles.
TILES_PER_IMAGE, MOST_WITHOUT = 64, 4096
# Keys that count what the index lists with one entry each.
COUNTS = r"(NON)?HIER_(\d+_)?COUNT|FILE_COUNT"
POSITIONS = ("VIMSLIDE_POSITION_BUFFER", "StitchingIntensityLayer")


def folder_of(slide: Path) -> Path | None:
    """The folder beside a MIRAX file that holds its pixels; None for another file."""
    folder = slide.with_suffix("")
    return folder if slide.suffix and (folder / INDEX).is_file() else None


def check_names(folder: Path) -> None:
    """Refuse a slide that names files elsewhere: its files are those in its folder, and no others."""
    index = folder / INDEX
    named_files(index, entries_of(index, INDEX_BYTES), NAMES)


def check_index(folder: Path) -> None:
    """Refuse a slide that states more images and tiles than it can have."""
    index = folder / INDEX
    entries = entries_of(index, INDEX_BYTES)
    columns, rows = (max([1, *numbers_of(entries, f"IMAGENUMBER_{axis}")]) for axis in "XY")
    if columns * rows > MAX_IMAGES:
        raise SlideError(index, f"states {columns} x {rows} images, over {MAX_IMAGES} in all", NOT_A_SLIDE)
    if max([0, *numbers_of(entries, COUNTS)]) > len(entries):
        raise SlideError(index, f"counts more entries than the {len(entries)} that it has", NOT_A_SLIDE)
    for tile in zip(*(numbers_of(entries, f"DIGITIZER_{side}") for side in ("WIDTH", "HEIGHT")), strict=False):
        check_tile(str(index), tile, tile)
    tiles, images = _tiles(index, entries, columns * rows)
    if tiles > TILES_PER_IMAGE * images + MOST_WITHOUT:
        raise SlideError(index, f"cuts {images} images into {tiles} tiles", NOT_A_SLIDE)


def _tiles(index: Path, entries: Entries, most: int) -> tuple[int, int]:
    """How many tiles OpenSlide makes of how many images, all levels together."""
    divisions = max([1, *numbers_of(entries, "CameraImageDivisionsPerSide")])
    overlaps = [value for key, value in entries if key.startswith("OVERLAP_") and value.strip("0.")]
    apart = bool(overlaps) or any(value in POSITIONS for _, value in entries)
    concat = itertools.accumulate(numbers_of(entries, "IMAGE_CONCAT_FACTOR"))
    each = [min(most, max(1, 2 ** min(level, 30) // divisions) ** 2) if apart else 1 for level in concat]
    values = dict(entries)
    images = _images(index.with_name(values.get("INDEXFILE", INDEX)), len(values.get("SLIDE_ID", "")), len(each))
    return sum(a * b for a, b in zip(each, images, strict=True)), sum(images)


def _images(index: Path, identifier_bytes: int, levels: int) -> list[int]:
    """How many images the pages of each level list. A broken index is left to OpenSlide."""
    data = index.read_bytes() if index.is_file() else b""

    def at(offset: int) -> int:
        return int.from_bytes(data[offset : offset + 4], "little") if 0 <= offset <= len(data) - 4 else -1

    counts = []
    for level in range(levels):
        page, images = at(at(at(VERSION_BYTES + identifier_bytes) + 4 * level) + 4), 0
        while 0 <= page < len(data):
            images += at(page)
            page = page + 8 + IMAGE_BYTES * at(page) if at(page + 4) > 0 else -1
        counts.append(images)
    return counts
