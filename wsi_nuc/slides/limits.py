"""What no slide may exceed: a header is a claim by a stranger, and memory is allocated by it."""

from __future__ import annotations

import contextlib

from wsi_nuc.errors import SlideError

MAX_SIDE_PX = 2**31 - 1
MAX_AREA_PX = 4 * 10**12
MAX_TILE_PX = 8192 * 8192
MAX_DECODED_WHOLE_PX = 150_000_000
MAX_XML_BYTES = 16 * 2**20
MAX_XML_DEPTH = 64
NOT_A_SLIDE = "check that the file is a real slide; copy it again if it is"


def check_size(name: str, width: int, height: int) -> None:
    """Refuse a slide that is empty or larger than any scanner writes."""
    if width < 1 or height < 1:
        raise SlideError(name, f"the header says {width} x {height} px", NOT_A_SLIDE)
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_AREA_PX:
        limit = f"more than {MAX_AREA_PX:.0e} px or {MAX_SIDE_PX} px a side"
        raise SlideError(name, f"the header says {width} x {height} px, which is {limit}", NOT_A_SLIDE)


def check_whole(name: str, width: int, height: int) -> None:
    """Refuse an image that can only be decoded whole and would fill the memory."""
    check_size(name, width, height)
    if width * height > MAX_DECODED_WHOLE_PX:
        cause = f"{width} x {height} px without tiles exceeds {MAX_DECODED_WHOLE_PX} px for a plain image"
        raise SlideError(name, cause, "convert it to a tiled TIFF first, for instance with `vips tiffsave --tile`")


def first_attributes(name: str, text: str, element: str) -> dict[str, str]:
    """Attributes of the first `element` (its name without namespace) of a slide's XML, {} where there is none.

    Malformed XML is no reason to refuse the pixels: it ends the search. No tree is built; entities, large and deep
    documents are refused before they cost anything.
    """
    from xml.parsers import expat

    if len(text) > MAX_XML_BYTES:
        raise SlideError(name, f"its XML has {len(text)} characters, over {MAX_XML_BYTES}", NOT_A_SLIDE)
    found: list[dict[str, str]] = []
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_XML_DEPTH:
            raise SlideError(name, f"its XML is nested deeper than {MAX_XML_DEPTH}", NOT_A_SLIDE)
        if not found and tag.rpartition(":")[2] == element:
            found.append(attributes)

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
    return found[0] if found else {}
