"""The name of a slide's result: readable, and never shared by two slides of different content."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wsi_nuc.store import durable
from wsi_nuc.store.locks import hold, private_dir
from wsi_nuc.store.manifest import owner_of

_LONGEST_BYTES = 200
_URL = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Control, format, surrogate and line-separating characters: nothing a terminal or a JSON file should meet.
_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def _file_name(slide: str) -> str:
    if _URL.match(slide):
        slide = unquote(urlsplit(slide).path)
    return slide.rstrip("/").rpartition("/")[2] or "slide"


def _escape(character: str) -> str:
    plain = character == " " or unicodedata.category(character) not in _ESCAPED
    if plain and character not in "/\\":
        return character
    raw = character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in raw)


def plain_name(slide: str) -> str:
    """The slide's file name with everything unprintable percent-escaped, cut to what file systems take."""
    # Joiners build emoji ("family"); they are the one format character that belongs into a name.
    name = "".join(c if c == "\u200d" else _escape(c) for c in _file_name(slide))
    return name.encode()[:_LONGEST_BYTES].decode("utf-8", "ignore") or "slide"


def _claim(out_dir: Path, name: str, content_sha256: str) -> bool:
    """True if `name` belongs to this content, now or before. Call it under the lock of names."""
    claim = private_dir(out_dir) / "names" / f"{name}.sha256"
    published = owner_of(out_dir / f"{name}.zarr")
    owner = published or (claim.read_text().strip() if claim.is_file() else "")
    if not owner:
        durable.atomic_write(claim, content_sha256.encode())
    return owner in ("", content_sha256)


def store_names(slides: Sequence[tuple[str, str]], out_dir: Path) -> list[str]:
    """Names for (path or URL, sha256 of the content) pairs, in their order.

    The first content to ask for a name keeps it, also against other processes; any other content gets eight
    digits of its hash appended, which needs no claim.
    """
    out_dir = Path(out_dir)
    names = []
    with hold(private_dir(out_dir) / "names.lock"):
        for slide, content in slides:
            plain = plain_name(slide)
            mine = _claim(out_dir, plain, content)
            names.append(f"{plain}.zarr" if mine else f"{plain}-{content[:8]}.zarr")
    return names


def store_name(slide: str, out_dir: Path, content_sha256: str) -> str:
    """The name of one slide's result below `out_dir`."""
    return store_names([(slide, content_sha256)], out_dir)[0]
