"""One table and one AnnData from ten thousand small files, with the same bytes however the jobs went."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.sheet import to_csv
from wsi_nuc.cohort.state import PENDING, State, states
from wsi_nuc.cohort.tables import OWN, Row, patient_rows, slide_rows
from wsi_nuc.store import manifest as manifests


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything that the table and the report of a cohort are made from."""

    states: list[State]
    """Where each slide of the list stands."""
    slides: list[Row]
    """One row of the table per slide of the list."""
    patients: list[Row]
    """One row of the table per patient."""
    columns: list[str]
    """Names of the table's columns, in their order."""


def gather(folder: CohortFolder) -> Collected:
    """All that is known about the cohort, from its plan, records, manifests and summaries."""
    plan = load(folder)
    confirmed = [_confirmed(folder, state) for state in states(folder, plan, plan.rows)]
    slides = slide_rows(folder, confirmed)
    patients = patient_rows(slides)
    columns = list(dict.fromkeys([*OWN, *(name for row in slides for name in row)]))
    return Collected(confirmed, slides, patients, columns)


def _confirmed(folder: CohortFolder, state: State) -> State:
    """A slide is done only if its manifest is the one that was verified and recorded."""
    if state.state != DONE or state.record is None:
        return state
    manifest, _ = manifests.load(folder.store(state.row.id))
    if manifest.get("digest") == state.record.digest:
        return state
    return replace(state, state=PENDING, error="its result is not the one that was recorded")


def collect(folder: CohortFolder, csv: bool = False) -> Collected:
    """Write `cohort.parquet`, `cohort.h5ad` and, if `csv`, `cohort.csv`. Each file is replaced as a whole."""
    got = gather(folder)
    rows = [*got.slides, *got.patients]
    folder.write(folder.table, _parquet(rows, got.columns))
    if csv:
        cells = ([row.get(name) for name in got.columns] for row in rows)
        folder.write(folder.csv, to_csv(got.columns, cells))
    done = [row for row in got.slides if row["state"] == DONE]
    folder.write(folder.anndata, _anndata(done, got.columns))
    return got


def kind_of(values: Sequence[Any]) -> type:
    """The type of a column (str, int or float) by its known values; str if it has none."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds or str in kinds:
        return str
    return int if kinds == {int} else float


def _parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    arrays = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        kind = kind_of(values)
        typed = [None if value is None else kind(value) for value in values]
        arrays[name] = pa.array(typed, types[kind])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _anndata(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    """`X` holds slides x figures, NaN where a figure is unknown; text columns are in `obs`."""
    import anndata
    import h5py
    import pandas as pd

    numbers, texts = [], {}
    for name in columns:
        values = [row.get(name) for row in rows]
        if kind_of(values) is str:
            if name not in ("level", "state", "error"):
                texts[name] = [str(value or "") for value in values]
        elif name != "slides":
            numbers.append(name)
    matrix = np.array([[_float(row.get(name)) for name in numbers] for row in rows], np.float64)
    index = pd.Index(texts.pop("id", []), dtype=object)
    made = anndata.AnnData(
        matrix.reshape(len(rows), len(numbers)),
        obs=pd.DataFrame(texts, index=index, dtype=object),
        var=pd.DataFrame(index=pd.Index(numbers, dtype=object)),
    )
    sink = io.BytesIO()
    with h5py.File(sink, "w") as file:
        anndata.io.write_elem(file, "/", made)
    return sink.getvalue()


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
