"""What the PromptNucSeg paper reports for its own models, to be printed beside scores on the same data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

from wsi_nuc.evaluation.tables import MEANS, Cell, Name, Table

PANNUKE_CLASSES = ("Neoplastic", "Epithelial", "Inflammatory", "Connective", "Dead")
SCORES = ("P", "R", "F1")
QUOTED = "(quoted)"
LEGEND = f"{QUOTED}: a figure of the paper, which was not measured here."

# Table 1, PromptNucSeg-H: bPQ and mPQ of each tissue, their means, and the deviation over the three splits.
TABLE_1 = {
    "Adrenal": (0.7227, 0.5128),
    "Bile Duct": (0.6976, 0.5012),
    "Bladder": (0.7212, 0.6043),
    "Breast": (0.6842, 0.5322),
    "Cervix": (0.6983, 0.5118),
    "Colon": (0.6096, 0.4690),
    "Esophagus": (0.6920, 0.5711),
    "Head & Neck": (0.6695, 0.5104),
    "Kidney": (0.7115, 0.5786),
    "Liver": (0.7372, 0.5333),
    "Lung": (0.6580, 0.4398),
    "Ovarian": (0.6856, 0.5442),
    "Pancreatic": (0.6863, 0.4974),
    "Prostate": (0.6983, 0.5456),
    "Skin": (0.6613, 0.4113),
    "Stomach": (0.7115, 0.4559),
    "Testis": (0.7151, 0.5474),
    "Thyroid": (0.7218, 0.4721),
    "Uterus": (0.6743, 0.4955),
    "Average": (0.6924, 0.5123),
    "Std": (0.0093, 0.0147),
}

# Table 2, PromptNucSeg: P, R, F1 of detection, then of each class.
_TABLE_2 = {
    "Detection": (0.82, 0.85, 0.84),
    "Neoplastic": (0.70, 0.72, 0.71),
    "Epithelial": (0.73, 0.78, 0.76),
    "Inflammatory": (0.58, 0.61, 0.59),
    "Connective": (0.55, 0.55, 0.55),
    "Dead": (0.44, 0.49, 0.46),
}
TABLE_2 = {
    (what, kind): (value,) for what, row in _TABLE_2.items() for kind, value in zip(SCORES, row, strict=True)
}

# Table 3, PromptNucSeg-H: PQ of each class.
TABLE_3 = {c: (v,) for c, v in zip(PANNUKE_CLASSES, (0.598, 0.582, 0.441, 0.433, 0.161), strict=True)}

# Table 4: Kumar AJI, PQ; CPM-17 AJI, PQ.
TABLE_4 = {
    "PromptNucSeg-B": (0.614, 0.620, 0.731, 0.726),
    "PromptNucSeg-B + TTA": (0.620, 0.627, 0.734, 0.730),
    "PromptNucSeg-L": (0.621, 0.626, 0.734, 0.730),
    "PromptNucSeg-L + TTA": (0.625, 0.631, 0.740, 0.735),
    "PromptNucSeg-H": (0.622, 0.627, 0.740, 0.733),
    "PromptNucSeg-H + TTA": (0.624, 0.631, 0.743, 0.737),
}

# Table 5: parameters, MACs, frames per second on an RTX 3090, mPQ.
TABLE_5 = {"PromptNucSeg-B": (145.6, 59.0, 27.0, 0.5095)}

# Table 6, PromptNucSeg-H on CPM-17: AJI, PQ of the parts FT, AUX, MAPF, NP.
TABLE_6 = {
    ("", "", "", ""): (0.319, 0.223),
    ("✓", "", "", ""): (0.728, 0.723),
    ("✓", "✓", "", ""): (0.734, 0.727),
    ("✓", "✓", "✓", ""): (0.737, 0.731),
    ("✓", "✓", "✓", "✓"): (0.740, 0.733),
}

# Table 7, PromptNucSeg-H on CPM-17: negatives in training and in the test; AJI, PQ of predicted, of true points.
TABLE_7 = {
    ("0", "0"): (0.737, 0.731, 0.779, 0.772),
    ("0", "1"): (0.737, 0.730, 0.794, 0.782),
    ("0", "2"): (0.735, 0.729, 0.793, 0.778),
    ("1", "0"): (0.737, 0.733, 0.780, 0.772),
    ("1", "1"): (0.740, 0.733, 0.804, 0.790),
    ("1", "2"): (0.736, 0.729, 0.808, 0.791),
    ("2", "0"): (0.739, 0.731, 0.778, 0.769),
    ("2", "1"): (0.740, 0.732, 0.804, 0.790),
    ("2", "2"): (0.738, 0.729, 0.811, 0.796),
}

# Table 8, PromptNucSeg-H: bPQ, mPQ, PQ of each class.
TABLE_8 = {
    "Prompter": (0.692, 0.512, 0.598, 0.582, 0.441, 0.433, 0.161),
    "Segmentor": (0.688, 0.506, 0.587, 0.587, 0.423, 0.431, 0.157),
}

# Table S2, PromptNucSeg-B: AJI and PQ, each with the in-domain score.
TABLE_S2 = {
    "CPM-17-train -> Kumar": ((0.592, 0.614), (0.598, 0.622)),
    "Kumar-train -> CPM-17": ((0.678, 0.731), (0.674, 0.726)),
}

# Table S3: combined CPM, then TNBC; AJI, DQ, SQ, PQ.
TABLE_S3 = {"PromptNucSeg-B": (0.655, 0.834, 0.786, 0.656, 0.608, 0.784, 0.802, 0.630)}


@dataclass(frozen=True, slots=True)
class Quoted:
    """A table of the paper, as far as it is about the paper's own models."""

    columns: tuple[tuple[str, str], ...]
    """Group and name of each column."""
    rows: Mapping[Any, Sequence[Cell]]
    """Name of a row -> one cell per column."""
    least_rows: int = 0
    """Above 0, the columns are not data sets, and at least this many of the rows must have been measured: all
    classes, or both means and a tissue, or a transfer."""
    note: str = ""
    """What a reader of the figures should know."""


def _columns(groups: Sequence[str], kinds: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((group, kind) for group in groups for kind in kinds)


_METHOD, _DETAIL = ("AJI", "PQ"), ("AJI", "DQ", "SQ", "PQ")
_TABLES: dict[str, Quoted] = {
    "Table 1": Quoted(_columns(["PromptNucSeg-H"], ["bPQ", "mPQ"]), TABLE_1, least_rows=3),
    "Table 2": Quoted((("PromptNucSeg", ""),), TABLE_2, least_rows=len(TABLE_2)),
    "Table 3": Quoted((("PromptNucSeg-H", ""),), TABLE_3, least_rows=len(TABLE_3)),
    "Table 4": Quoted(_columns(["Kumar", "CPM-17"], _METHOD), TABLE_4),
    "Table 5": Quoted(
        (("", "Parameters (M)"), ("", "MACs (G)"), ("", "tiles/s"), ("", "mPQ")),
        TABLE_5,
        note="The paper's tiles/s are its FPS on an RTX 3090.",
    ),
    "Table 6": Quoted(_columns(["CPM-17"], _METHOD), TABLE_6),
    "Table 7": Quoted(_columns(["CPM-17, Pred", "CPM-17, GT"], _METHOD), TABLE_7),
    "Table 8": Quoted(
        (("Tissue", "bPQ"), ("Tissue", "mPQ"), *(("Nucleus", name) for name in PANNUKE_CLASSES)), TABLE_8
    ),
    "Table S2": Quoted(
        _columns([""], _METHOD),
        TABLE_S2,
        least_rows=1,
        note="PQ of PromptNucSeg-B within Kumar: 0.622 in the paper's Table S2, 0.620 in its Table 4.",
    ),
    "Table S3": Quoted(_columns(["Combined CPM", "TNBC"], _DETAIL), TABLE_S3),
}


def paper_order(classes: Sequence[str]) -> list[int]:
    """Positions of PanNuke's classes in the paper's order; other classes stay as they are."""
    place = {name.lower(): i for i, name in enumerate(classes)}
    wanted = [name.lower() for name in PANNUKE_CLASSES]
    return [place[name] for name in wanted] if set(place) == set(wanted) else list(range(len(classes)))


def with_paper(table: Table) -> Table:
    """The table with the paper's figures in columns of their own, also in rows that were not measured. A table of
    other data sets or classes stays as it is."""
    quoted = _TABLES.get(table.number)
    if quoted is None:
        return table
    measured = {(group.lower(), kind.lower()) for group, kind in table.columns}
    kept = [i for i, (group, kind) in enumerate(quoted.columns)
            if quoted.least_rows or (group.lower(), kind.lower()) in measured]  # fmt: skip
    own = {_key(name): name for name in table.rows}
    names = {name: own.get(_key(name), name) for name in quoted.rows}
    if not kept or len(set(names.values()) & set(table.rows)) < quoted.least_rows:
        return table
    figures = {names[name]: [cells[i] for i in kept] for name, cells in quoted.rows.items()}
    rows = {
        name: [*table.rows.get(name, [nan] * len(table.columns)), *figures.get(name, [nan] * len(kept))]
        for name in sorted({**table.rows, **figures}, key=lambda name: name in MEANS)
    }
    columns = [(f"{quoted.columns[i][0]} {QUOTED}".strip(), quoted.columns[i][1]) for i in kept]
    notes = (*table.notes, LEGEND, *([quoted.note] if quoted.note else []))
    return replace(table, columns=(*table.columns, *columns), rows=rows, notes=notes)


def _key(name: Name) -> Name:
    """PanNuke's files call the tissues Adrenal_gland, Bile-duct and HeadNeck."""
    if isinstance(name, tuple):
        return tuple(part.lower() for part in name)
    return re.sub(r"[^a-z0-9+]", "", name.lower()).removesuffix("gland")
