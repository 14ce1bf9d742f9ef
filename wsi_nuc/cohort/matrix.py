"""`cohort.h5ad` and `patients.h5ad`: rows x figures without NaN, so that scanpy and scikit-learn take them as they
are.

`X` holds the figures that do not grow with the amount of tissue, and `obs` all others. The file says what was left
out or filled, and why.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import wsi_nuc
from wsi_nuc.cohort.plan import Plan
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.tables import FILLED, OWN, PATIENT, Row
from wsi_nuc.results_numbers import NUMBERS
from wsi_nuc.store.column_record import FACTS, NONE, Column

# Of the table's own columns, those that `obs` has, by level.
IN_OBS = {
    "slide": ("patient", "slide", "store"),
    "patient": ("state", "slides", "slides_failed", "slides_left", "slides_differ_in"),
}
# Texts that name one slide. All others become categories.
NAMES = ("slide", "store", "slide_sha256")
MATRIX = (
    FILLED,
    Column("family", "", "in `var`: what kind of figure the column holds", "text"),
    Column(
        "default",
        "as the column",
        "in `var`: what `X` holds where a row has no value, and `layers['measured']` is false. It is the mean "
        "over the rows that have a value, which is 0 after scaling",
        "any number",
    ),
    Column("measured", "", "in `var`: rows of the file that have a value", "whole numbers from 1", kind=int),
)
ROWS = "One row per {} that is done and has nuclei and usable tissue. The others are in rows_left_out."
FIGURES = (
    "X holds figures that do not grow with the amount of tissue. Counts, areas, and how the slide was treated are "
    "in obs. A figure that was not measured for every slide, or that no row has, is in columns_left_out. Where a "
    "row has no value, X holds var['default'], and layers['measured'] is false; obs['figures_filled'] counts that."
)


def anndata_bytes(
    level: str, rows: Sequence[Row], columns: Sequence[Column], everywhere: set[str], plan: Plan
) -> bytes:
    """The file of one `level`. `everywhere`: the columns that were measured for all slides that are done."""
    import anndata
    import h5py
    import pandas as pd

    reasons = [why_not(row) for row in rows]
    refused = {row["id"]: why for row, why in zip(rows, reasons, strict=True) if why}
    kept = [row for row, why in zip(rows, reasons, strict=True) if not why]
    figures = [column for column in columns if column.patient.rule in ("mean", "derived")]
    values = np.empty((len(kept), len(figures)))
    for i, row in enumerate(kept):
        values[i] = [_float(row.get(column.name)) for column in figures]
    known = np.isfinite(values)
    measured = known.sum(axis=0)
    absent = {
        column.name: "no row has it" if column.name in everywhere else "not measured for every slide"
        for column, seen in zip(figures, measured, strict=True)
        if column.name not in everywhere or not seen
    }
    used = [i for i, column in enumerate(figures) if column.name not in absent]
    figures = [figures[i] for i in used]
    values, known, measured = values[:, used], known[:, used], measured[used]
    default = np.array([math.fsum(column[ok]) / ok.sum() for column, ok in zip(values.T, known.T, strict=True)])
    np.copyto(values, default, where=~known)
    obs = _obs(level, kept, columns)
    index = pd.Index([row["id"] for row in kept], name="id", dtype=object)
    made = anndata.AnnData(
        values,
        obs=pd.DataFrame({**obs, FILLED.name: (~known).sum(axis=1)}, index=index),
        var=_var(figures, default, measured),
        layers={"measured": known},
        uns={
            "wsi_nuc": {
                "version": wsi_nuc.__version__,
                "results": dict(NUMBERS),
                "settings": json.dumps(plan.settings, sort_keys=True),
                "rows": ROWS.format(level),
                "figures": FIGURES,
                "rows_left_out": _reasons(refused),
                "columns_left_out": _reasons(absent),
            }
        },
    )
    sink = io.BytesIO()
    with h5py.File(sink, "w") as file:
        anndata.io.write_elem(file, "/", made)
    return sink.getvalue()


def why_not(row: Row) -> str:
    """Why a slide or a patient has no row; "" if it has one."""
    if not row.get("slides"):
        error = row["error"] or ("no slide is done" if row["level"] == PATIENT else "")
        return f"{row['state']}: {error}" if error else str(row["state"])
    return "" if row["nuclei"] and row["usable_mm2"] else "no nuclei" if row["usable_mm2"] else "no usable tissue"


def measured_everywhere(slides: Sequence[Row]) -> set[str]:
    """The columns that every slide that is done has, with or without a value."""
    everywhere: set[str] | None = None
    for row in slides:
        if row["state"] == DONE:
            everywhere = set(row) if everywhere is None else everywhere & row.keys()
    return everywhere or set()


def _obs(level: str, rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    """By name. HDF5 takes a slash for a group, so it becomes an underscore."""
    obs: dict[str, Any] = {}
    names = {column.name for column in columns}
    for column in columns:
        if _in_obs(level, column):
            name = column.name.replace("/", "_")
            while name in obs or (name != column.name and name in names):
                name += "_"
            obs[name] = _values(column, rows)
    return obs


def _in_obs(level: str, column: Column) -> bool:
    if column in OWN:
        return column.name in IN_OBS[level]
    return column.patient.rule not in ("mean", "derived") and not (level == PATIENT and column.patient == NONE)


def _values(column: Column, rows: Sequence[Row]) -> Any:
    import pandas as pd

    values = [row.get(column.name) for row in rows]
    if column.kind is not str:
        whole = column.kind is int and None not in values
        return np.array(values, np.int64) if whole else np.array([_float(value) for value in values], np.float64)
    if column.name in NAMES:
        return np.array([value or "" for value in values], object)
    categories = sorted({value for value in values if value is not None})
    return pd.Categorical(values, pd.Index(categories, dtype=object))


def _var(figures: Sequence[Column], default: Any, measured: Any) -> Any:
    import pandas as pd

    facts = {"family": [column.family for column in figures]}
    facts |= {fact: [column.facts[fact] for column in figures] for fact in FACTS}
    index = pd.Index([column.name for column in figures], dtype=object)
    table = pd.DataFrame(facts, index=index, dtype=object)
    return table.assign(default=default.astype(np.float64), measured=measured.astype(np.int64))


def _reasons(why: dict[str, str]) -> Any:
    import pandas as pd

    return pd.DataFrame({"why": list(why.values())}, index=pd.Index(list(why), dtype=object), dtype=object)


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
