"""What the PromptNucSeg paper reports for its own models, to be printed beside scores on the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan

from wsi_nuc.evaluation.tables import Cell, Table

PANNUKE_CLASSES = ("Neoplastic", "Epithelial", "Inflammatory", "Connective", "Dead")

# Table 1, PromptNucSeg-H: bPQ, mPQ averaged over the 19 tissues, and their deviation over the three splits.
TABLE_1_AVERAGE = {"PromptNucSeg-H": {"Average": (0.6924, 0.5123), "Std": (0.0093, 0.0147)}}

# Table 2: P, R, F1 of detection, then of each class in the order of PANNUKE_CLASSES.
TABLE_2 = {
    "PromptNucSeg": (
        *(0.82, 0.85, 0.84),
        *(0.70, 0.72, 0.71),
        *(0.73, 0.78, 0.76),
        *(0.58, 0.61, 0.59),
        *(0.55, 0.55, 0.55),
        *(0.44, 0.49, 0.46),
    )
}

# Table 3: PQ of each class in the order of PANNUKE_CLASSES.
TABLE_3 = {"PromptNucSeg-H": (0.598, 0.582, 0.441, 0.433, 0.161)}

# Table 4: Kumar AJI, PQ; CPM-17 AJI, PQ.
TABLE_4 = {
    "PromptNucSeg-B": (0.614, 0.620, 0.731, 0.726),
    "PromptNucSeg-B + TTA": (0.620, 0.627, 0.734, 0.730),
    "PromptNucSeg-L": (0.621, 0.626, 0.734, 0.730),
    "PromptNucSeg-L + TTA": (0.625, 0.631, 0.740, 0.735),
    "PromptNucSeg-H": (0.622, 0.627, 0.740, 0.733),
    "PromptNucSeg-H + TTA": (0.624, 0.631, 0.743, 0.737),
}

# Table S2, PromptNucSeg-B: AJI and PQ, each with the in-domain score.
TABLE_S2 = {
    "CPM-17-train -> Kumar-test": ((0.592, 0.614), (0.598, 0.622)),
    "Kumar-train -> CPM-17-test": ((0.678, 0.731), (0.674, 0.726)),
}

# Table S3: combined CPM, then TNBC; AJI, DQ, SQ, PQ.
TABLE_S3 = {"PromptNucSeg-B": (0.655, 0.834, 0.786, 0.656, 0.608, 0.784, 0.802, 0.630)}

_METHOD = ("AJI", "PQ")
_DETAIL = ("AJI", "DQ", "SQ", "PQ")
# The columns of each of the paper's tables, which show whether a table has the same data sets and classes; its
# rows.
_ROWS: dict[str, tuple[list[tuple[str, str]], Mapping[str, Sequence[Cell]]]] = {
    "Table 2": ([(g, k) for g in ("Detection", *PANNUKE_CLASSES) for k in ("P", "R", "F1")], TABLE_2),
    "Table 3": ([("", c) for c in PANNUKE_CLASSES], TABLE_3),
    "Table 4": ([(s, k) for s in ("Kumar", "CPM-17") for k in _METHOD], TABLE_4),
    "Table S2": ([("", k) for k in _METHOD], TABLE_S2),
    "Table S3": ([(s, k) for s in ("Combined CPM", "TNBC") for k in _DETAIL], TABLE_S3),
}


def paper_order(classes: Sequence[str]) -> list[int]:
    """Positions of PanNuke's classes in the paper's order; other classes stay as they are."""
    place = {name.lower(): i for i, name in enumerate(classes)}
    wanted = [name.lower() for name in PANNUKE_CLASSES]
    return [place[name] for name in wanted] if set(place) == set(wanted) else list(range(len(classes)))


def with_paper(table: Table) -> Table:
    """The table with the paper's rows below it (Table 1: its columns beside it). A table with other columns stays
    as it is."""
    if table.number == "Table 1":
        return _with_columns(table)
    columns, rows = _ROWS.get(table.number, ([], {}))
    same = [(g.lower(), k.lower()) for g, k in table.columns] == [(g.lower(), k.lower()) for g, k in columns]
    if not same or (table.number == "Table S2" and not _between_the_papers_sets(table)):
        return table
    return replace(table, rows={**table.rows, **{f"{name} (paper)": row for name, row in rows.items()}})


def _between_the_papers_sets(transfers: Table) -> bool:
    return all(row.rpartition(" -> ")[2] in ("Kumar", "CPM-17") for row in transfers.rows)


def _with_columns(table: Table) -> Table:
    """Only averages are added: the paper's values of the tissues are those of three splits together."""
    columns, rows = table.columns, dict(table.rows)
    for method, known in TABLE_1_AVERAGE.items():
        columns = (*columns, *((f"{method} (paper)", kind) for kind in ("bPQ", "mPQ")))
        rows = {name: [*cells, *known.get(name, (nan, nan))] for name, cells in rows.items()}
    return replace(table, columns=columns, rows=rows)
