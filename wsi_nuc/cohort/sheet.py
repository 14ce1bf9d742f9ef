"""The list that a cohort is planned from: a CSV, a folder or a pattern.

No slide is opened. In a folder, slides are known by their content, and files that are not slides are counted.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.safezip import is_packed
from wsi_nuc.slides import mirax
from wsi_nuc.slides.files import content_files
from wsi_nuc.slides.sniff import kind_of
from wsi_nuc.store.verify import is_result

COLUMNS = ("slide", "id", "patient", "mpp", "roi", "tissue", "model")
SEPARATORS = ",;\t"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
MOST_NAMED = 5
# Kinds of files that come with others beside them.
MANY_FILES = ("dicom", "hamamatsu")
# Cells that hold no value, in a column whose other cells are numbers.
NO_VALUE = ("", "NA", "N/A", "NaN", "nan")
# A number that begins with a needless zero is a name, such as 007, and so is one of more digits than 64 bits hold:
# 18 as a whole number, 15 before the point of a float.
WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Line:
    """One slide of the list."""

    number: int
    """Its line in the CSV, or its place in the listing, from 1."""
    cells: dict[str, str]
    """By column."""
    problem: str = ""
    """Why it cannot be used; "" if it can."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The whole list."""

    folder: Path
    """Relative paths count from here."""
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    """What was left out."""


def read_sheet(source: str) -> Sheet:
    """`source`: a CSV with a column `slide`, a folder that is searched, or a pattern such as a/*.svs."""
    path = Path(source)
    if path.is_dir() and not is_slide(path):
        slides, notes = slides_below(path)
    elif path.exists() and is_slide(path):
        slides, notes = [path], []
    elif path.is_file():
        return Sheet(path.absolute().parent, tuple(_csv_lines(path)))
    else:
        slides, notes = [Path(name) for name in sorted(glob.glob(source, recursive=True))], []  # noqa: PTH207
    if not slides:
        raise UsageError(source, "has no slides", "pass a CSV, a folder with slides or a quoted pattern")
    lines = (Line(number, {"slide": str(slide)}) for number, slide in enumerate(slides, 1))
    return Sheet(Path.cwd(), tuple(lines), tuple(notes))


def _csv_lines(path: Path) -> Iterator[Line]:
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    try:
        header = _header(path, next(reader, []))
        lines = [_line(reader.line_num, header, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {reader.line_num}", f"is not a valid CSV ({error})", "correct the quotes"
        ) from None
    if not lines:
        raise UsageError(path, "has a header and no line below it", "add one line per slide")
    yield from lines


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(path, f"cannot be read ({error.strerror})", "check the path") from None
    encoding = "utf-16" if raw.startswith(UTF16) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        place = f"byte {error.start} of the file"
        raise UsageError(path, f"is not UTF-8 ({place})", "save it as CSV in UTF-8") from None
    if "\0" in text:
        raise UsageError(path, "is neither a slide nor a CSV", "pass a CSV with a column slide")
    return text


def _separator(text: str) -> str:
    """The separator that occurs most in the header; a comma if there is only one column."""
    header = text.lstrip().partition("\n")[0]
    return max(SEPARATORS, key=header.count)


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    # Our own columns are known in upper and lower case; others keep their spelling.
    names = [name.lower() if name.lower() in COLUMNS else name for name in names]
    said = ", ".join(names) or "nothing"
    if "slide" not in names:
        raise UsageError(
            path, f"has no column slide; its first line says {said}", "give the column of the paths that name"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(path, f"has two columns {twice[0]!r}", "rename one of them")
    if "" in names:
        raise UsageError(path, f"column {names.index('') + 1} has no name", "name it, or delete it")
    return names


def _line(number: int, header: Sequence[str], cells: Sequence[str]) -> Line:
    problem = ""
    if len(cells) > len(header):
        problem = f"has {len(cells)} cells, the header has {len(header)}; quote cells that hold the separator"
    padded = [cell.strip() for cell in cells] + [""] * len(header)
    return Line(number, dict(zip(header, padded, strict=False)), problem)


def is_slide(path: Path) -> bool:
    """True if a reader may open it: an image file or an OME-Zarr folder."""
    try:
        return kind_of(str(path)) not in ("other", "folder")
    except SlideError:
        return False


def slides_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Sorted paths, and notes of what was left out. A slide of several files is listed by one of them."""
    slides: list[Path] = []
    others: list[str] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        inner = [here / name for name in sorted(folders)]
        slides += [path for path in inner if _whole(path)]
        folders[:] = [path.name for path in inner if not (_whole(path) or _part(path))]
        files = [here / name for name in sorted(names) if not name.startswith(".")]
        images, rest = _files([file for file in files if not (is_packed(file) and is_result(file))])
        slides += images
        others += [str(path.relative_to(folder)) for path in rest]
    named = ", ".join(sorted(others)[:MOST_NAMED]) + (", ..." if len(others) > MOST_NAMED else "")
    return sorted(slides), [f"{len(others)} files are not slides ({named})"] if others else []


def _whole(folder: Path) -> bool:
    """Whether the folder is an OME-Zarr slide, and not a result of this program."""
    return not is_result(folder) and is_slide(folder)


def _part(folder: Path) -> bool:
    """Whether the folder is not searched: hidden, a result, or part of a slide beside it."""
    return folder.name.startswith(".") or is_result(folder) or (folder / mirax.INDEX).is_file()


def _files(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Slides, and other files. A file that cannot be read counts as a slide, so that its problem is reported."""
    kinds = {file: _kind(file) for file in files}
    parts: set[Path] = set()
    for file in files:
        if kinds[file] in MANY_FILES and file not in parts:
            with contextlib.suppress(SlideError, OSError):
                parts |= {*content_files(str(file))} - {file}
    whole = [file for file in files if file not in parts]
    return [file for file in whole if kinds[file] != "other"], [file for file in whole if kinds[file] == "other"]


def _kind(file: Path) -> str:
    try:
        return kind_of(str(file))
    except SlideError:
        return "unknown"


def typed(cells: Sequence[str]) -> tuple[type, list[Any]]:
    """What kind a column of the list is, and its values: whole numbers or numbers if all cells with a value are
    such, else the texts as they are. None where there is no value."""
    known = [cell for cell in cells if cell not in NO_VALUE]
    kinds: tuple[tuple[Any, re.Pattern[str]], ...] = ((int, WHOLE), (float, NUMBER))
    for kind, pattern in kinds:
        if known and all(pattern.fullmatch(cell) and math.isfinite(float(cell)) for cell in known):
            return kind, [None if cell in NO_VALUE else kind(cell) for cell in cells]
    return str, [cell or None for cell in cells]
