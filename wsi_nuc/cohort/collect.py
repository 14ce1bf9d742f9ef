"""The tables of a cohort from ten thousand small files, with the same bytes however the jobs went."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.matrix import anndata_bytes, measured_everywhere
from wsi_nuc.cohort.plan import Plan, load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.state import PENDING, State, states
from wsi_nuc.cohort.tables import PATIENT, SLIDE, Row, patient_rows, slide_rows
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.column_record import Column
from wsi_nuc.store.flat import to_csv, to_parquet


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything that the table and the report of a cohort are made from."""

    plan: Plan
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
    return Collected(plan, confirmed, slides, patient_rows(slides, columns), columns)


def _confirmed(folder: CohortFolder, state: State) -> State:
    """A slide is done only if its manifest is the one that was verified and recorded."""
    if state.state != DONE or state.record is None:
        return state
    manifest, _ = manifests.load(folder.store(state.row.id))
    if manifest.get("digest") == state.record.digest:
        return state
    return replace(state, state=PENDING, error="its result is not the one that was recorded")


def collect(folder: CohortFolder, csv: bool = False) -> Collected:
    """Write `cohort.parquet`, `cohort.h5ad`, `patients.h5ad` and, if `csv`, `cohort.csv`. Each file is replaced as
    a whole."""
    got = gather(folder)
    rows = [*got.slides, *got.patients]
    folder.write(folder.table, to_parquet(rows, got.columns))
    if csv:
        names = [column.name for column in got.columns]
        folder.write(folder.csv, to_csv(names, ([row.get(name) for name in names] for row in rows)))
    everywhere = measured_everywhere(got.slides)
    for file, level, of_level in (
        (folder.anndata, SLIDE, got.slides),
        (folder.patients, PATIENT, got.patients),
    ):
        folder.write(file, anndata_bytes(level, of_level, got.columns, everywhere, got.plan))
    return got
