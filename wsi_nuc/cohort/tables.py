"""The rows of a cohort's table: one per slide of the list, whatever became of it, and one per patient.

The figures of a slide are computed once, when it is done, and kept in a small file: collecting ten thousand slides
reads only these files.

The figures of a patient come from those of the slides, each in the way that its `Column` says. A figure that only
a part of the patient's slides has, because another model or no features were used for the others, stays empty.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.records import DONE, FAILED, read_json
from wsi_nuc.cohort.sheet import typed
from wsi_nuc.cohort.state import REFUSED, State
from wsi_nuc.features.squares import entropy, segregation
from wsi_nuc.features.summary import figure_column, slide_summary
from wsi_nuc.results_numbers import NUMBERS
from wsi_nuc.slides.address import shown
from wsi_nuc.store.column_record import GIVEN, NONE, Column

Row = dict[str, Any]
Figures = dict[str, float | int | str | None]
SLIDE, PATIENT = "slide", "patient"
# Resolutions that differ by less than this share count as the same: headers of one scanner differ that much.
SAME_MPP = 0.02


def _own(name: str, about: str, reach: str, empty: str = "never", kind: type = str) -> Column:
    return Column(name, "", about, reach, empty, kind=kind)


OWN = (
    _own("level", "what the row is", "`slide` or `patient`"),
    _own(
        "id", "the slide's id, which names its store (`line N` where the list gives none), or the patient", "text"
    ),
    _own("patient", "the patient, from the list", "text", "the list names none"),
    _own(
        "state",
        "slide: `done` (published and verified), `running`, `pending`, `failed`, `refused` (by the plan). "
        "Patient: `done` (all of its slides are), `partial` (some are; the figures stand on these), "
        "`missing` (none is)",
        "the words named",
    ),
    _own("error", "why the slide is not done", "text", "it is done, waits, or the row is a patient's"),
    _own(
        "slides",
        "slides that the figures of the row stand on",
        "whole numbers from 0; 1 for a slide that is done",
        kind=int,
    ),
    _own("slides_failed", "slides of the row that failed or were refused", "whole numbers from 0", kind=int),
    _own("slides_left", "slides of the row that are pending or running", "whole numbers from 0", kind=int),
    _own(
        "slides_differ_in",
        "in what the slides of a patient were not treated alike, so that the pooled figures need a look: `mpp` "
        f"(by more than {SAME_MPP * 100:.0f} %), `model`, `weights` (of one model), `features` (measured for some "
        "slides only)",
        "text, parts joined by `; `",
        "they were treated alike, or the row is a slide's",
    ),
    _own("slide", "path or address of the slide", "text", "the row is a patient's"),
    _own(
        "store", "path of the result, relative to the folder of the cohort", "text", "not done, or a patient's row"
    ),
)
OWN_NAMES = tuple(column.name for column in OWN)
LISTED = Column(
    "{column}",
    "",
    "a further column of the list: whole numbers or numbers if all of its cells are, else text. Cells that are "
    "empty or say NA or NaN do not count among numbers, and what begins with a needless zero (007) is text. It is "
    "called `list_NAME` if the table has a column NAME already",
    "numbers, or text",
    "the list has no value there",
    kind=str,
    patient=GIVEN,
)
FILLED = Column(
    "figures_filled",
    "",
    "figures of the row that have no value and hold the default of their column in `X`",
    "whole numbers from 0",
    kind=int,
)
# A figure that the list itself gives: the name of the slide's file.
LEFT_OUT = ("slide",)


def slide_rows(folder: CohortFolder, slides: Sequence[State]) -> tuple[list[Row], list[Column]]:
    """One row per slide, in the order of the list, and the columns. A slide that is not done has no figures."""
    figures = [_figures(folder, state) for state in slides]
    names = dict.fromkeys(name for measured in figures for name in measured)
    # AnnData keeps the last one for itself.
    taken = {*OWN_NAMES, *names, FILLED.name, "_index"}
    kept = dict.fromkeys(name for state in slides for name in state.row.kept)
    listed = {kept_name(name, taken): typed([state.row.kept.get(name, "") for state in slides]) for name in kept}
    # The figures become the rows: ten thousand copies of them would be a part of what the tables need at all.
    rows: list[Row] = figures
    for i, (row, state) in enumerate(zip(rows, slides, strict=True)):
        row.update(_slide_row(folder, state))
        row.update((name, values[i]) for name, (_, values) in listed.items())
    columns = [
        *OWN,
        *(replace(LISTED.with_({"column": name}), kind=kind) for name, (kind, _) in listed.items()),
        *(of_cohort(figure_column(name)) for name in names),
    ]
    return rows, columns


def of_cohort(column: Column) -> Column:
    """What a figure of a slide means in the table, where slides that are not done have none."""
    return replace(column, empty="not done" if column.empty == "never" else f"not done, or {column.empty}")


def _figures(folder: CohortFolder, state: State) -> Figures:
    if state.state != DONE or state.record is None:
        return {}
    digest = state.record.digest
    figures = read(folder, state.row.id, digest)
    if figures is None:
        # Somebody deleted the file; the figures can be computed from the store again.
        summarise(folder, state.row.id, digest)
        figures = read(folder, state.row.id, digest) or {}
    return {name: value for name, value in figures.items() if name not in LEFT_OUT}


def _slide_row(folder: CohortFolder, state: State) -> Row:
    row, done = state.row, state.state == DONE
    return {
        "level": SLIDE,
        "id": row.label,
        "patient": row.patient or None,
        "state": state.state,
        "error": _printable(state.error) or None,
        "slides": int(done),
        "slides_failed": int(state.state in (FAILED, REFUSED)),
        "slides_left": int(not done and state.state not in (FAILED, REFUSED)),
        "slides_differ_in": None,
        "slide": _printable(shown(row.slide)),
        "store": str(folder.store(row.id).relative_to(folder.root)) if done else None,
    }


def _printable(text: str) -> str:
    """Text for the table. File names may hold bytes that are not text, and a table may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def kept_name(name: str, taken: set[str]) -> str:
    """The name of a column of the list in the table: another one if we have a column of that name."""
    return f"list_{name}" if name in taken else name


def patient_rows(slides: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """One row per patient, sorted by name. Slides without a patient are left out."""
    by_patient: dict[str, list[Row]] = {}
    for row in slides:
        if row["patient"] is not None:
            by_patient.setdefault(row["patient"], []).append(row)
    return [_patient_row(patient, by_patient[patient], columns) for patient in sorted(by_patient)]


def _patient_row(patient: str, slides: Sequence[Row], columns: Sequence[Column]) -> Row:
    done = [row for row in slides if row["state"] == DONE]
    own = dict.fromkeys(OWN_NAMES)
    own |= {"level": PATIENT, "id": patient, "patient": patient}
    own["state"] = "missing" if not done else "partial" if len(done) < len(slides) else DONE
    own |= {name: sum(row[name] for row in slides) for name in ("slides", "slides_failed", "slides_left")}
    own["slides_differ_in"] = differing(done)
    others = [column for column in columns if column.name not in own]
    given = {column.name: _given(column.name, slides) for column in others if column.patient == GIVEN}
    figures = pooled(done, [column for column in others if column.patient != GIVEN]) if done else {}
    return {**own, **given, **figures}


def _given(name: str, slides: Sequence[Row]) -> Any:
    """What the list says in every line of the patient that says something."""
    values = {row[name] for row in slides if row.get(name) is not None}
    return values.pop() if len(values) == 1 else None


def differing(slides: Sequence[Row]) -> str | None:
    """In what the done slides of a patient were not treated alike."""
    if not slides:
        return None
    parts = []
    mpps = [row["mpp"] for row in slides]
    if max(mpps) > min(mpps) * (1 + SAME_MPP):
        parts.append(f"mpp ({min(mpps):.4g} to {max(mpps):.4g})")
    models = sorted({row["model"] for row in slides})
    if len(models) > 1:
        parts.append(f"model ({', '.join(models)})")
    elif len({row["weights_sha256"] for row in slides}) > 1:
        parts.append("weights")
    measured = ["feature_mean_area_um2" in row for row in slides]
    if len(set(measured)) > 1:
        parts.append(f"features (measured for {sum(measured)} of {len(slides)})")
    return "; ".join(parts) or None


def summarise(folder: CohortFolder, slide_id: str, digest: str) -> None:
    """Keep the figures of a published slide in its file. A figure that is unknown (NaN) is null there."""
    if read(folder, slide_id, digest) is not None:
        return
    figures = {
        key: value if _known(value) else None for key, value in slide_summary(folder.store(slide_id)).items()
    }
    document = {"digest": digest, "results": NUMBERS["features"], "figures": figures}
    folder.write(folder.summary(slide_id), json.dumps(document, allow_nan=False).encode() + b"\n")


def _known(value: float | int | str) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def read(folder: CohortFolder, slide_id: str, digest: str) -> Figures | None:
    """The kept figures of the result with this digest; None if they are missing, those of another result, or
    computed in another way than today."""
    document = read_json(folder.summary(slide_id))
    if document is None or (document.get("digest"), document.get("results")) != (digest, NUMBERS["features"]):
        return None
    # All slides share the strings of the names: a third of the memory of ten thousand slides.
    return {sys.intern(name): value for name, value in document["figures"].items()}


def pooled(slides: Sequence[Row], columns: Sequence[Column]) -> Row:
    """The figures of a patient from those of its done slides."""
    row = {column.name: _pool(column, slides) for column in columns if column.patient != NONE}
    if row.get("class_entropy_bits", 0) is None:
        counts = [row[column.name] for column in columns if column.name.startswith("count_")]
        known = [] if None in counts else counts
        locally, everywhere = row["class_entropy_local_bits"], entropy(np.array(known, np.int64))
        row["class_entropy_bits"] = everywhere if math.isfinite(everywhere) else None
        apart = math.nan if locally is None else segregation(locally, everywhere)
        row["class_segregation"] = apart if math.isfinite(apart) else None
    return row


def _pool(column: Column, slides: Sequence[Row]) -> Any:
    """None where a slide was not measured in this figure, and where no slide knows it."""
    name, rule = column.name, column.patient.rule
    if rule == "derived" or not all(name in row for row in slides):
        return None
    known = [row for row in slides if row[name] is not None]
    values = [row[name] for row in known]
    if rule == "same":
        return values[0] if len(known) == len(slides) and len(set(values)) == 1 else None
    if rule == "sum":
        return sum(values) if column.kind is int else math.fsum(values)
    weights = [float(row[column.patient.by] or 0.0) for row in known]
    total = math.fsum(weights)
    if not total:
        return None
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total
