"""Index files with lines of `key = value`, as GLib reads them, and the files that they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.limits import NOT_A_SLIDE
from wsi_nuc.slides.localfile import refuse_special

TOGETHER = "keep the files of a slide in one folder, as the scanner wrote them"
Entries = Sequence[tuple[str, str]]


def entries_of(index: Path, most_bytes: int) -> Entries:
    """Every key with its value, of all groups, in the order of the file."""
    with index.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise SlideError(index, f"is larger than the {most_bytes} bytes of such an index", NOT_A_SLIDE)
    lines = (line.rstrip("\r").partition("=") for line in data.decode("utf-8", "surrogateescape").split("\n"))
    return [(key.strip(), value.lstrip()) for key, equals, value in lines if equals]


def named_files(index: Path, entries: Entries, keys: str) -> list[Path]:
    """The files that the entries of `keys` (a regular expression) name and that lie beside it."""
    files = []
    for name in (value for key, value in entries if value and re.fullmatch(keys, key)):
        if name in (".", "..") or set(name) & set("/\\\0"):
            cause = f"names the file {name[:64]!r}, which is not the name of a file beside it"
            raise SlideError(index, cause, TOGETHER)
        place = index.with_name(name)
        refuse_special(str(place))
        if place.is_file():
            files.append(place)
    return files


def numbers_of(entries: Entries, keys: str) -> list[int]:
    """The whole numbers of the entries of `keys` (a regular expression)."""
    matches = (re.match(r"\+?(\d{1,18})(\s|$)", value) for key, value in entries if re.fullmatch(keys, key))
    return [int(match[1]) for match in matches if match]
