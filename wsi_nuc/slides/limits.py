"""Limits that no slide may exceed: anybody may have written its header, and memory is allocated by it."""

from __future__ import annotations

import contextlib
import math

from wsi_nuc.errors import SlideError

MAX_SIDE_PX = 2**31 - 1
# A slide of 25 x 75 mm at 0.1 um has 1.9e11.
MAX_AREA_PX = 25 * 10**10
# A tile is decoded at once, and several tiles at the same time.
MAX_TILE_PX = 4096 * 4096
# It costs more to find a smaller tile than to decode it.
MIN_TILE_SIDE_PX = 16
# Per level. A level of 250,000 x 250,000 px has a million tiles of 256 px.
MAX_TILES = 2**22
# To decode an image without tiles: enough for RGB of about 7,000 x 7,000 px.
MAX_WHOLE_BYTES = 350 * 10**6
MAX_XML_BYTES = 16 * 2**20
MAX_DEPTH = 64
NOT_A_SLIDE = "check that the file is a real slide; copy it again if it is"
TILE_AGAIN = "convert it to a pyramid of small tiles, for instance with `vips tiffsave --tile --pyramid`"


def check_size(name: str, width: int, height: int) -> None:
    """Refuse a slide that is empty or larger than any scanner writes."""
    if width < 1 or height < 1:
        raise SlideError(name, f"the header says {width} x {height} px", NOT_A_SLIDE)
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_AREA_PX:
        limit = f"more than {MAX_AREA_PX:.1e} px or {MAX_SIDE_PX} px per side"
        raise SlideError(name, f"the header says {width} x {height} px, which is {limit}", NOT_A_SLIDE)


def check_tile(name: str, tile: tuple[int, int], image: tuple[int, int]) -> None:
    """Refuse tiles (width, height) that are too large to decode, or too small for an image of that size."""
    width, height = tile
    small = any(side < min(MIN_TILE_SIDE_PX, whole) for side, whole in zip(tile, image, strict=True))
    if small or width * height > MAX_TILE_PX:
        limits = f"less than {MIN_TILE_SIDE_PX} px per side" if small else f"more than {MAX_TILE_PX:,} px in all"
        raise SlideError(name, f"has tiles of {width} x {height} px, {limits}", TILE_AGAIN)


def check_tiles(name: str, tile: tuple[int, int], image: tuple[int, int]) -> int:
    """The number of tiles of an image; refused if no real file would list so many."""
    count = math.prod(-(-whole // side) for whole, side in zip(image, tile, strict=True))
    if count > MAX_TILES:
        cause = (
            f"{image[0]} x {image[1]} px in tiles of {tile[0]} x {tile[1]} px are {count} tiles, over {MAX_TILES}"
        )
        raise SlideError(name, cause, TILE_AGAIN)
    return count


def check_whole(name: str, width: int, height: int, needed_bytes: int) -> None:
    """Refuse an image that can only be decoded whole and would take too much memory."""
    check_size(name, width, height)
    if needed_bytes > MAX_WHOLE_BYTES:
        needs = f"{width} x {height} px without tiles need {needed_bytes / 1e6:,.0f} MB to be decoded"
        raise SlideError(name, f"{needs}, over the {MAX_WHOLE_BYTES / 1e6:.0f} MB for a plain image", TILE_AGAIN)


def first_attributes(name: str, text: str, element: str) -> dict[str, str]:
    """Attributes of the first `element` of a slide's XML, {} if there is no such element; see `attributes_of`."""
    return next(iter(attributes_of(name, text, element)), {})


def attributes_of(name: str, text: str, element: str) -> list[dict[str, str]]:
    """Attributes of every `element` (its name without namespace) of a slide's XML, in their order.

    Malformed XML ends the search; it is not a reason to refuse the pixels. No tree is built. Entities, and large
    and deep documents, are refused before they cost anything.
    """
    from xml.parsers import expat

    if len(text) > MAX_XML_BYTES:
        raise SlideError(name, f"its XML has {len(text)} characters, over {MAX_XML_BYTES}", NOT_A_SLIDE)
    matches: list[dict[str, str]] = []
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise SlideError(name, f"its XML is nested deeper than {MAX_DEPTH}", NOT_A_SLIDE)
        if tag.rpartition(":")[2] == element:
            matches.append(attributes)

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_: object) -> None:
        raise SlideError(name, "its XML declares a DOCTYPE or an entity", NOT_A_SLIDE)

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    with contextlib.suppress(expat.ExpatError):
        parser.Parse(text.encode("utf-8", "replace"), True)
    return matches
