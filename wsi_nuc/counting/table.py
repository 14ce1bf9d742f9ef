"""The table of counts: what its columns mean, and how it is written. The file appears complete, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_nuc.counting.count import Counted, Question, count
from wsi_nuc.errors import UsageError
from wsi_nuc.store import durable
from wsi_nuc.store.column_record import Column
from wsi_nuc.store.flat import to_csv, to_parquet
from wsi_nuc.store.folders import made_folder

SUFFIXES = (".csv", ".parquet")
_NO_TISSUE, _NO_NUCLEI = "no usable tissue is there", "no nucleus was counted there"
_NO_DAB = "no counted nucleus there has a density of DAB"


def _number(name: str, about: str, reach: str = "whole numbers from 0") -> Column:
    return Column(name, "", about, reach, kind=int)


FIRST = (
    Column("slide", "", "name of the store, or id of the slide in its cohort", "text", kind=str),
    Column("patient", "", "the patient", "text", "the list of the cohort names none", kind=str),
)
OF_REGIONS = (
    _number("region", "number of the region in its file", "whole numbers from 1"),
    Column("name", "", "name of the region; `slide` for the slide as a whole", "text", "it has none", kind=str),
    Column("region_class", "", "class of the region, such as Tumor or Stroma", "text", "it has none", kind=str),
)
OF_CELLS = (
    _number("column", "column of the cell, from the left side of the slide"),
    _number("row", "row of the cell, from the upper side of the slide"),
    Column("x0_um", "um", "left side of the cell", "from 0"),
    Column("y0_um", "um", "upper side of the cell", "from 0"),
)
COUNTS = (
    Column(
        "area_mm2", "mm2", "area of the region, as far as it lies on the slide, or of the whole cell", "above 0"
    ),
    Column(
        "usable_mm2",
        "mm2",
        "usable tissue in there: tissue that was searched, less the places that could not be decoded or computed",
        "0 to area_mm2",
    ),
    _number("nuclei", "counted nuclei whose centroids are in there"),
    Column("per_mm2", "1/mm2", "`nuclei` / `usable_mm2`", "from 0", _NO_TISSUE),
    _number("count_{class}", "those of the class"),
    Column("per_mm2_{class}", "1/mm2", "`count_{class}` / `usable_mm2`", "from 0", _NO_TISSUE),
    Column("share_{class}", "", "`count_{class}` / `nuclei`", "0 to 1", _NO_NUCLEI),
)
POSITIVE = (
    _number("positive", "nuclei whose `dab_mean` is above the limit of `--positive-above`"),
    Column("positive_share", "", "`positive` over the nuclei that have a `dab_mean`", "0 to 1", _NO_DAB),
    _number("positive_{class}", "positive nuclei of the class"),
    Column(
        "positive_share_{class}", "", "their share of those of the class that have a `dab_mean`", "0 to 1", _NO_DAB
    ),
)
COLUMNS = (*FIRST, *OF_REGIONS, *OF_CELLS, *COUNTS, *POSITIVE)


@dataclass(frozen=True, slots=True)
class Subject:
    """A store that is counted."""

    store: Path
    label: str
    """Names it in the table."""
    question: Question
    patient: str | None = None


def write_counts(
    subjects: Sequence[Subject],
    out: Path,
    overwrite: bool = False,
    progress: Callable[[int, Counted], None] = lambda done, counted: None,
) -> int:
    """Count in every store and write one table. Returns the number of its rows.

    `progress` is called after each store, with the number of stores that are done. After an error in one of them
    there is no file.
    """
    refuse_target(out, overwrite)
    rows: list[dict[str, Any]] = []
    classes: dict[str, None] = {}
    for done, subject in enumerate(subjects, 1):
        counted = count(subject.store, subject.question)
        classes |= dict.fromkeys(counted.classes)
        first = {"slide": subject.label, **({"patient": subject.patient} if subject.patient else {})}
        rows += [first | row for row in counted.rows]
        progress(done, counted)
    columns = columns_of(subjects[0].question, list(classes), any("patient" in row for row in rows))
    durable.atomic_write(made_folder(out.parent) / out.name, _bytes(rows, columns, out.suffix))
    return len(rows)


def refuse_target(out: Path, overwrite: bool) -> None:
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out {out}", "is neither CSV nor Parquet", f"give a name with {' or '.join(SUFFIXES)}")
    if os.path.lexists(out) and not (overwrite and out.is_file()):
        raise UsageError(out, "exists", "give another name, or --overwrite")


def columns_of(question: Question, classes: Iterable[str], patients: bool) -> list[Column]:
    """The columns of a table, in order."""
    columns = list(FIRST if patients else FIRST[:1])
    columns += OF_CELLS if question.grid_um is not None else OF_REGIONS
    for group in (COUNTS, *([POSITIVE] if question.positive_above is not None else [])):
        columns += [column for column in group if "{class}" not in column.name]
        for name in classes:
            columns += [column.with_({"class": name}) for column in group if "{class}" in column.name]
    return columns


def _bytes(rows: Sequence[dict[str, Any]], columns: Sequence[Column], suffix: str) -> bytes:
    if suffix == ".parquet":
        return to_parquet(rows, columns)
    names = [column.name for column in columns]
    return to_csv(names, ([row.get(name) for name in names] for row in rows))
