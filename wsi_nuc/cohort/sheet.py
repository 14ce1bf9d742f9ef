"""The list that a cohort is planned from, as lines of text: a CSV, a folder or a pattern. No slide is opened.

The slides below a folder, told by their content. What is none is counted, not passed over in silence.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.safezip import is_packed
from wsi_nuc.slides import mirax
from wsi_nuc.slides.files import content_files
from wsi_nuc.slides.sniff import kind_of
from wsi_nuc.store.verify import is_result

MOST_NAMED = 5
# Kinds of files that stand for others beside them.
MANY_FILES = ("dicom", "hamamatsu")


def is_slide(path: Path) -> bool:
    """True for what a reader may open: an image file or an OME-Zarr folder."""
    try:
        return kind_of(str(path)) not in ("other", "folder")
    except SlideError:
        return False


def slides_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Sorted paths, and notes of what was left out. Of a slide of several files one stands for all."""
    slides: list[Path] = []
    others: list[str] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        inner = [here / name for name in sorted(folders)]
        slides += [path for path in inner if _whole(path)]
        folders[:] = [path.name for path in inner if not (_whole(path) or _part(path))]
        files = [here / name for name in sorted(names) if not name.startswith(".")]
        found, rest = _files([file for file in files if not (is_packed(file) and is_result(file))])
        slides += found
        others += [str(path.relative_to(folder)) for path in rest]
    named = ", ".join(sorted(others)[:MOST_NAMED]) + (", ..." if len(others) > MOST_NAMED else "")
    return sorted(slides), [f"{len(others)} files are no slides ({named})"] if others else []


def _whole(folder: Path) -> bool:
    """An OME-Zarr slide; a result of this program is none."""
    return not is_result(folder) and is_slide(folder)


def _part(folder: Path) -> bool:
    return folder.name.startswith(".") or is_result(folder) or (folder / mirax.INDEX).is_file()


def _files(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Slides and other files. One that cannot even be looked at is listed as a slide: its reason belongs told."""
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


COLUMNS = ("slide", "id", "patient", "mpp", "roi", "tissue", "model")
SEPARATORS = ",;\t"
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Line:
    """`number`: the line of the CSV, or the place in the listing, from 1. `problem`: why it cannot be used."""

    number: int
    cells: dict[str, str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Relative paths count from `folder`; `notes` say what was left out."""

    folder: Path
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def read_sheet(source: str) -> Sheet:
    """`source`: a CSV with a column `slide`, a folder that is searched, or a pattern such as a/*.svs."""
    path = Path(source)
    if path.is_dir() and not is_slide(path):
        found, notes = slides_below(path)
    elif path.exists() and is_slide(path):
        found, notes = [path], []
    elif path.is_file():
        return Sheet(path.absolute().parent, tuple(_csv_lines(path)))
    else:
        found, notes = [Path(name) for name in sorted(glob.glob(source, recursive=True))], []  # noqa: PTH207
    if not found:
        raise UsageError(source, "no slide is there", "pass a CSV, a folder with slides or a quoted pattern")
    lines = (Line(number, {"slide": str(one)}) for number, one in enumerate(found, 1))
    return Sheet(Path.cwd(), tuple(lines), tuple(notes))


def _csv_lines(path: Path) -> Iterator[Line]:
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    try:
        header = _header(path, next(reader, []))
        lines = [_line(reader.line_num, header, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}", f"is no CSV ({error})", "correct the quotes") from None
    if not lines:
        raise UsageError(path, "has a header and no line below it", "add a line a slide")
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
    """The one that occurs most in the header; a comma where there is but one column."""
    header = text.lstrip().partition("\n")[0]
    return max(SEPARATORS, key=header.count)


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    # The columns that mean something are found in any case; others keep the spelling they have.
    names = [name.lower() if name.lower() in COLUMNS else name for name in names]
    said = ", ".join(names) or "nothing"
    if "slide" not in names:
        raise UsageError(
            path, f"has no column slide; its first line says {said}", "name the column of the paths so"
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
