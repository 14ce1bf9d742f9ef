"""The list that a cohort is planned from, as lines of text: a CSV, a folder or a pattern. No slide is opened."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.cohort.listing import is_slide, slides_below
from wsi_nuc.errors import UsageError

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
