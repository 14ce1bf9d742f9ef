"""The tables of the PromptNucSeg paper (1-4, S2, S3), filled with measured scores, as text, markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.detection import ClassCounts, Detection
from wsi_nuc.evaluation.metrics import Panoptic
from wsi_nuc.evaluation.protocol import ImageScore, Means, PanNukeMeans, mean

# A cell is a number, or a number with its in-domain counterpart (Table S2 prints it in parentheses).
Cell = float | tuple[float, float]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of scores. A missing value is NaN and prints as "-"."""

    number: str
    title: str
    head: str
    """Head of the column with the names of the rows."""
    columns: tuple[tuple[str, str], ...]
    """Group and name of each column."""
    rows: Mapping[str, Sequence[Cell]]
    """Name of a row -> one cell per column."""
    digits: int = 3
    """Decimals that are printed."""

    def __post_init__(self) -> None:
        for name, cells in self.rows.items():
            if len(cells) != len(self.columns):
                raise UsageError(
                    f"{self.number}, row {name}",
                    f"{len(cells)} values for {len(self.columns)} columns",
                    "give one per column",
                )


def table_1(methods: Mapping[str, Sequence[PanNukeMeans]]) -> Table:
    """PanNuke by tissue: bPQ and mPQ of each method, means over its splits. `Std` is over the splits' averages."""
    tissues = sorted({t for splits in methods.values() for split in splits for t in split.bpq_by_tissue})
    rows: dict[str, list[Cell]] = {t: [] for t in [*tissues, "Average", "Std"]}
    for splits in methods.values():
        for kind in ("bpq", "mpq"):
            averages = [getattr(split, kind) for split in splits]
            for t in tissues:
                rows[t].append(mean(getattr(split, f"{kind}_by_tissue").get(t, math.nan) for split in splits))
            rows["Average"].append(mean(averages))
            rows["Std"].append(float(np.std(averages)) if len(averages) > 1 else math.nan)
    columns = tuple((method, kind) for method in methods for kind in ("bPQ", "mPQ"))
    return Table("Table 1", "Panoptic quality on PanNuke", "Tissue", columns, rows, digits=4)


def table_2(methods: Mapping[str, Sequence[Means]], classes: Sequence[str]) -> Table:
    """Precision, recall and F1 of detection and of each class (which must match), means over the splits."""
    groups = ["Detection", *classes]
    rows = {}
    for method, splits in methods.items():
        per_split = [(split.detection, *split.detection_by_class) for split in splits]
        rows[method] = [
            mean(getattr(split[g], kind) for split in per_split)
            for g in range(len(groups))
            for kind in ("precision", "recall", "f1")
        ]
    columns = tuple((group, kind) for group in groups for kind in ("P", "R", "F1"))
    return Table("Table 2", "Detection and classification on PanNuke", "Method", columns, rows, digits=2)


def table_3(methods: Mapping[str, Sequence[PanNukeMeans]], classes: Sequence[str]) -> Table:
    """PQ of each class, mean over the splits."""
    rows = {
        method: [mean(split.pq_by_class[c] for split in splits) for c in range(len(classes))]
        for method, splits in methods.items()
    }
    return Table("Table 3", "PQ by class on PanNuke", "Method", tuple(("", c) for c in classes), rows)


def table_4(methods: Mapping[str, Mapping[str, Means]], sets: Sequence[str] = ("Kumar", "CPM-17")) -> Table:
    """AJI and PQ, mean over images, of each method on each data set."""
    return _by_data_set("Table 4", "AJI and PQ", methods, sets, ("aji", "pq"))


def table_s2(transfers: Mapping[str, tuple[Means, Means]]) -> Table:
    """Models that were trained on one set and tested on another: their score and, in parentheses, that of a model
    trained on the other set."""
    rows: dict[str, list[Cell]] = {
        name: [(away.aji, home.aji), (away.pq, home.pq)] for name, (away, home) in transfers.items()
    }
    return Table("Table S2", "Generalisation (in-domain score)", "Transfer", (("", "AJI"), ("", "PQ")), rows)


def table_s3(methods: Mapping[str, Mapping[str, Means]], sets: Sequence[str] = ("Combined CPM", "TNBC")) -> Table:
    """Zero-shot AJI, DQ, SQ and PQ of models that never saw these sets."""
    return _by_data_set("Table S3", "Zero-shot scores", methods, sets, ("aji", "dq", "sq", "pq"))


def _by_data_set(
    number: str,
    title: str,
    methods: Mapping[str, Mapping[str, Means]],
    sets: Sequence[str],
    kinds: Sequence[str],
) -> Table:
    rows = {
        method: [getattr(means[s], kind) if s in means else math.nan for s in sets for kind in kinds]
        for method, means in methods.items()
    }
    columns = tuple((s, kind.upper()) for s in sets for kind in kinds)
    return Table(number, title, "Method", columns, rows)


def as_markdown(table: Table) -> str:
    names = [f"{group} {name}".strip() for group, name in table.columns]
    lines = [f"**{table.number}.** {table.title}", "", f"| {' | '.join([table.head, *names])} |"]
    lines.append("|" + "---|" + "---:|" * len(names))
    lines += [f"| {' | '.join([name, *_cells(table, cells)])} |" for name, cells in table.rows.items()]
    return "\n".join(lines) + "\n"


def as_text(table: Table) -> str:
    """Aligned columns under a two-line head: group above, name below."""
    groups = [""] + [g if not i or g != table.columns[i - 1][0] else "" for i, (g, _) in enumerate(table.columns)]
    names = [table.head] + [name for _, name in table.columns]
    body = [[name, *_cells(table, cells)] for name, cells in table.rows.items()]
    widths = [max(len(row[i]) for row in [groups, names, *body]) for i in range(len(names))]
    lines = [f"{table.number}. {table.title}"]
    for row in [groups, names, *body]:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(line for line in lines if line) + "\n"


def _cells(table: Table, cells: Sequence[Cell]) -> list[str]:
    return [_cell(cell, table.digits) for cell in cells]


def _cell(cell: Cell, digits: int) -> str:
    if isinstance(cell, tuple):
        return f"{_cell(cell[0], digits)} ({_cell(cell[1], digits)})"
    return "-" if math.isnan(cell) else f"{cell:.{digits}f}"


def to_json(scores: Table | Means | PanNukeMeans | Sequence[ImageScore]) -> str:
    """Strict JSON with all digits. NaN becomes null; counts come with the scores that follow from them."""
    return json.dumps(_plain(scores), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        out = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return out | {name: _plain(getattr(value, name)) for name in _derived(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _derived(value: object) -> tuple[str, ...]:
    if isinstance(value, Panoptic):
        return ("dq", "sq", "pq")
    return ("precision", "recall", "f1") if isinstance(value, Detection | ClassCounts) else ()
