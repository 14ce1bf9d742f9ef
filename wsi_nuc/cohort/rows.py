"""Turns the lines of a list into rows of a plan: absolute paths, checked settings, unique ids."""

from __future__ import annotations

import hashlib
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_nuc.cohort.plan import PlanRow
from wsi_nuc.cohort.sheet import COLUMNS, Line, Sheet
from wsi_nuc.cohort.twins import refuse_twin
from wsi_nuc.config import RunConfig
from wsi_nuc.configuring import with_settings
from wsi_nuc.errors import USAGE, UsageError
from wsi_nuc.slides.address import is_url
from wsi_nuc.store.names import plain_name


def make_rows(sheet: Sheet, common: RunConfig) -> list[PlanRow]:
    """One row per line, in the order of the list. Rows that cannot be used carry their problem."""
    rows = [_row(line, sheet.folder, common) for line in sheet.lines]
    rows = [_named(row, line) for row, line in zip(rows, sheet.lines, strict=True)]
    return _unique(_once(rows), sheet.lines)


def _row(line: Line, folder: Path, common: RunConfig) -> PlanRow:
    cells = line.cells
    slide = _absolute(cells["slide"], folder)
    kept = {key: value for key, value in cells.items() if key not in COLUMNS}
    settings, problem = _settings(cells, folder)
    row = PlanRow(line.number, "", slide, cells.get("patient", ""), settings, kept)
    if line.problem:
        return row.refused(line.problem, USAGE)
    if not slide:
        return row.refused("names no slide", USAGE)
    try:
        with_settings(common, settings)
    except UsageError as error:
        problem = problem or str(error)
    return row.refused(problem, USAGE) if problem else row


def _absolute(path: str, folder: Path) -> str:
    if not path or is_url(path):
        return path
    return os.path.abspath(folder / os.path.expanduser(path))  # noqa: PTH111 - "~x" may be a plain name


def _settings(cells: dict[str, str], folder: Path) -> tuple[dict[str, Any], str]:
    """The row's own settings, and what is wrong with them."""
    settings: dict[str, Any] = {}
    problem = ""
    if text := cells.get("mpp", ""):
        try:
            settings["mpp"] = float(text)
        except ValueError:
            problem = f"mpp {text!r} is not a number; write microns per pixel like 0.25"
        if not math.isfinite(settings.get("mpp", 1.0)):
            problem = f"mpp {settings.pop('mpp')} is not the size of a pixel; write microns per pixel like 0.25"
    if text := cells.get("roi", ""):
        settings["roi"] = _absolute(text, folder)
    if text := cells.get("tissue", ""):
        settings["tissue"] = text if text in ("auto", "none") else _absolute(text, folder)
    if text := cells.get("model", ""):
        file = folder / os.path.expanduser(text)  # noqa: PTH111 - as above
        settings["model"] = os.path.abspath(file) if file.is_file() else text
    return settings, problem


def _named(row: PlanRow, line: Line) -> PlanRow:
    """The row with its id from the list, if that can name a result. A row without one is named in `_unique`."""
    given = line.cells.get("id", "")
    flaw = _flaw(given) if given else ""
    if flaw:
        return row if row.exit_code == USAGE else row.refused(f"id {given!r} {flaw}", USAGE)
    return replace(row, id=given)


def _flaw(text: str) -> str:
    if "/" in text or "\\" in text:
        return "has a slash, and ids name files; use another character"
    if text.startswith("."):
        return "begins with a dot; begin with a letter or a digit"
    return "" if plain_name(text) == text else "cannot name a file; use plain characters, at most 200 bytes"


def _unique(rows: Sequence[PlanRow], lines: Sequence[Line]) -> list[PlanRow]:
    """Name rows without an id by their file. If several lines have the same id the first one keeps it."""
    unnamed = [not row.id and not line.cells.get("id") for row, line in zip(rows, lines, strict=True)]
    plain = [
        plain_name(row.slide).lstrip(".") or "slide" if new else row.id
        for row, new in zip(rows, unnamed, strict=True)
    ]
    often = Counter(map(_same, plain))
    out, first = [], dict[str, int]()
    for row, new, name in zip(rows, unnamed, plain, strict=True):
        own = f"{name}-{hashlib.sha256(row.slide.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        row = replace(row, id=(own if often[_same(name)] > 1 else name) if new else row.id)  # noqa: PLW2901
        key = _same(row.id)
        if row.id and key in first:
            problem = row.problem or f"its id {row.id!r} is also that of line {first[key]}"
            row = replace(row.refused(problem, USAGE), id="")  # noqa: PLW2901
        first.setdefault(key, row.line)
        out.append(row)
    return out


def _once(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Refuse further lines of a slide, also under another path of the same file."""
    first: dict[str, PlanRow] = {}
    out = []
    for row in rows:
        place = row.slide if is_url(row.slide) else os.path.realpath(row.slide)
        twin = first.setdefault(place, row) if row.slide else row
        out.append(refuse_twin(row, twin, "file") if twin is not row and not row.problem else row)
    return out


def _same(name: str) -> str:
    """Equal for names that some file system treats as the same."""
    return unicodedata.normalize("NFC", name).casefold()
