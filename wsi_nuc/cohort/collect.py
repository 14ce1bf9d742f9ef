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
from wsi_nuc.store.columns import FACTS, Column, described

# Of the table's own columns, those that say something of a slide that is done.
IN_OBS = ("id", "patient", "slide", "store")


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything that the table and the report of a cohort are made from."""

    states: list[State]
    """Where each slide of the list stands."""
    slides: list[Row]
    """One row of the table per slide of the list."""
    patients: list[Row]
    """One row of the table per patient."""
    columns: list[Column]
    """The table's columns, in their order."""


def gather(folder: CohortFolder) -> Collected:
    """All that is known about the cohort, from its plan, records, manifests and summaries."""
    plan = load(folder)
    confirmed = [_confirmed(folder, state) for state in states(folder, plan, plan.rows)]
    slides, columns = slide_rows(folder, confirmed)
    return Collected(confirmed, slides, patient_rows(slides, columns), columns)


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
        names = [column.name for column in got.columns]
        folder.write(folder.csv, to_csv(names, ([row.get(name) for name in names] for row in rows)))
    done = [row for row in got.slides if row["state"] == DONE]
    folder.write(folder.anndata, _anndata(done, got.columns))
    return got


def _parquet(rows: Sequence[Row], columns: Sequence[Column]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = described(pa.schema([(column.name, types[column.kind]) for column in columns]), columns)
    arrays = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _anndata(rows: Sequence[Row], columns: Sequence[Column]) -> bytes:
    """`X` holds slides x figures, NaN where a figure is unknown; text columns are in `obs`."""
    import anndata
    import h5py
    import pandas as pd

    figures = [column for column in columns if column not in OWN or column.name in IN_OBS]
    texts = {
        column.name: [str(row.get(column.name) or "") for row in rows] for column in figures if column.kind is str
    }
    numbers = [column for column in figures if column.kind is not str]
    matrix = np.array([[_float(row.get(column.name)) for column in numbers] for row in rows], np.float64)
    index = pd.Index(texts.pop("id"), dtype=object)
    facts = {fact: [column.facts[fact] for column in numbers] for fact in FACTS}
    made = anndata.AnnData(
        matrix.reshape(len(rows), len(numbers)),
        obs=pd.DataFrame(texts, index=index, dtype=object),
        var=pd.DataFrame(facts, index=pd.Index([column.name for column in numbers], dtype=object), dtype=object),
    )
    sink = io.BytesIO()
    with h5py.File(sink, "w") as file:
        anndata.io.write_elem(file, "/", made)
    return sink.getvalue()


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
