"""The tables of the PromptNucSeg paper, filled with measured scores, as text, markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.detection import ClassCounts, Detection
from wsi_nuc.evaluation.metrics import Panoptic
from wsi_nuc.evaluation.protocol import Means, PanNukeMeans, mean

# A cell is a number, a number with its in-domain counterpart (Table S2 prints it in parentheses), or a text.
Cell = float | tuple[float, float] | str
# The name of a row: one text, or one per head where several columns name it.
Name = str | tuple[str, ...]
MEANS = ("Average", "Std")
PARTS = ("FT", "AUX", "MAPF", "NP")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of scores. A missing value is NaN and prints as "-"."""

    number: str
    title: str
    head: Name
    """Head of the column with the names of the rows, or of the columns."""
    columns: tuple[tuple[str, str], ...]
    """Group and name of each column."""
    rows: Mapping[Any, Sequence[Cell]]
    """Name of a row -> one cell per column."""
    digits: int = 3
    """Decimals that are printed."""
    digits_of: Mapping[str, int] = field(default_factory=dict)
    """Decimals of columns of these names, where they differ."""
    notes: tuple[str, ...] = ()
    """What is printed below."""

    def __post_init__(self) -> None:
        for name, cells in self.rows.items():
            if len(cells) != len(self.columns):
                raise UsageError(
                    f"{self.number}, row {' '.join(names_of(name))}",
                    f"{len(cells)} values for {len(self.columns)} columns",
                    "give one per column",
                )


def names_of(name: Name) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else name


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs. A value is NaN where it cannot be counted."""

    parameters_m: float = math.nan
    """Millions of parameters."""
    published_gmacs: float = math.nan
    """Multiply-accumulates of a 256 px tile as the paper counts them, in thousand millions."""
    gmacs: float = math.nan
    """Those that are computed here for the same masks."""
    tiles_per_s: float = math.nan
    """Tiles of 256 px that are analysed in a second, one after the other."""
    device: str = ""
    """What it was measured on."""


def table_1(methods: Mapping[str, Sequence[PanNukeMeans]]) -> Table:
    """PanNuke by tissue: bPQ and mPQ of each method, means over its splits. `Std` is over the splits' averages."""
    tissues = sorted({t for splits in methods.values() for split in splits for t in split.bpq_by_tissue})
    rows: dict[str, list[Cell]] = {t: [] for t in [*tissues, *MEANS]}
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
    """Precision, recall and F1 of detection and of each class (which must match), means over the splits. Unlike in
    the paper, the methods are columns."""
    groups = ["Detection", *(name.capitalize() for name in classes)]
    per_method = [
        [(split.detection, *split.detection_by_class) for split in splits] for splits in methods.values()
    ]
    rows = {
        (group, name): [mean(getattr(split[g], kind) for split in splits) for splits in per_method]
        for g, group in enumerate(groups)
        for name, kind in (("P", "precision"), ("R", "recall"), ("F1", "f1"))
    }
    columns = tuple((method, "") for method in methods)
    return Table(
        "Table 2", "Detection and classification on PanNuke", ("Nuclei", "Score"), columns, rows, digits=2
    )


def table_3(methods: Mapping[str, Sequence[PanNukeMeans]], classes: Sequence[str]) -> Table:
    """PQ of each class, mean over the splits. Unlike in the paper, the methods are columns."""
    rows = {
        name.capitalize(): [mean(split.pq_by_class[c] for split in splits) for splits in methods.values()]
        for c, name in enumerate(classes)
    }
    return Table("Table 3", "PQ by class on PanNuke", "Class", tuple((method, "") for method in methods), rows)


def table_4(methods: Mapping[str, Mapping[str, Means]], sets: Sequence[str] = ("Kumar", "CPM-17")) -> Table:
    """AJI and PQ, mean over images, of each method on each data set."""
    return _by_data_set("Table 4", "AJI and PQ", methods, sets, ("aji", "pq"))


def table_5(methods: Mapping[str, tuple[Cost, Sequence[PanNukeMeans]]]) -> Table:
    """Size, cost, speed and mPQ, the mean over the splits."""
    rows = {
        method: [
            cost.parameters_m,
            cost.published_gmacs,
            cost.gmacs,
            cost.tiles_per_s,
            mean(s.mpq for s in splits),
        ]
        for method, (cost, splits) in methods.items()
    }
    names = ("Parameters (M)", "MACs (G)", "MACs here (G)", "tiles/s", "mPQ")
    digits = {"mPQ": 4} | dict.fromkeys(names[:4], 1)
    devices = ", ".join(dict.fromkeys(cost.device for cost, _ in methods.values()))
    note = f"Per tile of 256 x 256 px. tiles/s: one tile after the other, from pixels to outlines, on {devices}."
    columns = tuple(("", name) for name in names)
    return Table("Table 5", "Size, cost and speed", "Method", columns, rows, digits_of=digits, notes=(note,))


def table_6(methods: Mapping[Any, Mapping[str, Means]], sets: Sequence[str]) -> Table:
    """AJI and PQ of methods that have these parts, each with a tick mark."""
    ticked = {tuple("✓" if part in parts else "" for part in PARTS): means for parts, means in methods.items()}
    return _by_data_set("Table 6", "Effect of the parts", ticked, sets, ("aji", "pq"), PARTS)


def table_7(methods: Mapping[tuple[int, int, bool], Mapping[str, Means]], sets: Sequence[str]) -> Table:
    """AJI and PQ by the negatives in training and in the test, for predicted and for annotated (GT) points."""
    columns = tuple((f"{s}, {points}", kind) for s in sets for points in ("Pred", "GT") for kind in ("AJI", "PQ"))
    rows = {}
    for trained, tested in dict.fromkeys((trained, tested) for trained, tested, _ in methods):
        means = [methods.get((trained, tested, true), {}) for true in (False, True)]
        rows[str(trained), str(tested)] = [
            getattr(of[s], kind) if s in of else math.nan for s in sets for of in means for kind in ("aji", "pq")
        ]
    heads = ("Negatives, training", "test")
    return Table("Table 7", "Number of negative prompts, source of prompts", heads, columns, rows)


def table_8(methods: Mapping[str, Sequence[PanNukeMeans]], classes: Sequence[str]) -> Table:
    """bPQ, mPQ and PQ of each class by which network classifies, means over the splits."""
    rows = {
        method: [
            mean(split.bpq for split in splits),
            mean(split.mpq for split in splits),
            *(mean(split.pq_by_class[c] for split in splits) for c in range(len(classes))),
        ]
        for method, splits in methods.items()
    }
    columns = (("Tissue", "bPQ"), ("Tissue", "mPQ"), *(("Nucleus", name.capitalize()) for name in classes))
    return Table("Table 8", "Which network classifies", "Classifier", columns, rows)


def table_overlap(methods: Mapping[int, Mapping[str, Means]], sets: Sequence[str]) -> Table:
    """AJI and PQ by the overlap of the segmentor's windows. The supplement at hand gives no figures for it."""
    rows = {str(px): means for px, means in methods.items()}
    return _by_data_set("Overlap", "Overlap of the windows", rows, sets, ("aji", "pq"), "Overlap (px)")


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
    methods: Mapping[Any, Mapping[str, Means]],
    sets: Sequence[str],
    kinds: Sequence[str],
    head: Name = "Method",
) -> Table:
    rows = {
        method: [getattr(means[s], kind) if s in means else math.nan for s in sets for kind in kinds]
        for method, means in methods.items()
    }
    columns = tuple((s, kind.upper()) for s in sets for kind in kinds)
    return Table(number, title, head, columns, rows)


def as_markdown(table: Table) -> str:
    heads, names = names_of(table.head), [f"{group} {name}".strip() for group, name in table.columns]
    lines = [f"**{table.number}.** {table.title}", "", f"| {' | '.join([*heads, *names])} |"]
    lines.append("|" + "---|" * len(heads) + "---:|" * len(names))
    lines += [f"| {' | '.join([*names_of(name), *_cells(table, cells)])} |" for name, cells in table.rows.items()]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in table.notes)


def as_text(table: Table) -> str:
    """Aligned columns under a two-line head: group above, name below."""
    heads = names_of(table.head)
    groups = [g if not i or g != table.columns[i - 1][0] else "" for i, (g, _) in enumerate(table.columns)]
    rows = [[""] * len(heads) + groups, [*heads, *(name for _, name in table.columns)]]
    rows += [[*names_of(name), *_cells(table, cells)] for name, cells in table.rows.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"{table.number}. {table.title}"]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[len(heads) :], widths[len(heads) :], strict=True)]
        lines.append(
            "  ".join([*(name.ljust(widths[i]) for i, name in enumerate(row[: len(heads)])), *cells]).rstrip()
        )
    return "\n".join(line for line in [*lines, *table.notes] if line) + "\n"


def _cells(table: Table, cells: Sequence[Cell]) -> list[str]:
    return [
        _cell(cell, table.digits_of.get(name, table.digits))
        for cell, (_, name) in zip(cells, table.columns, strict=True)
    ]


def _cell(cell: Cell, digits: int) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, tuple):
        return f"{_cell(cell[0], digits)} ({_cell(cell[1], digits)})"
    return "-" if math.isnan(cell) else f"{cell:.{digits}f}"


def to_json(scores: Any) -> str:
    """Strict JSON, with all digits, of scores, tables and what is made of them. NaN becomes null; counts come with
    the scores that follow from them."""
    return json.dumps(plain(scores), indent=1, allow_nan=False)


def plain(value: Any) -> Any:
    """The same as dictionaries, lists, texts, numbers and None."""
    if dataclasses.is_dataclass(value):
        out = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return out | {name: plain(getattr(value, name)) for name in _derived(value)}
    if isinstance(value, Mapping):
        return {" | ".join(names_of(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _derived(value: object) -> tuple[str, ...]:
    if isinstance(value, Panoptic):
        return ("dq", "sq", "pq")
    return ("precision", "recall", "f1") if isinstance(value, Detection | ClassCounts) else ()
