"""The rows of a cohort's table: one a slide of the list, whatever became of it, and one a patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsi_nuc.cohort import summaries
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.patients import pooled
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.state import State
from wsi_nuc.cohort.summaries import Figures
from wsi_nuc.slides.address import shown

Row = dict[str, Any]
SLIDE, PATIENT = "slide", "patient"
OWN = ("level", "id", "patient", "state", "error", "slides", "slide", "store")
# The summary's own name of the slide's file, which the list knows better.
LEFT_OUT = ("slide",)


def slide_rows(folder: CohortFolder, found: Sequence[State]) -> list[Row]:
    """In the order of the list. What is not done has no figures; nothing is left out."""
    figures = [_figures(folder, state) for state in found]
    taken = {*OWN, *(name for one in figures for name in one)}
    return [_slide_row(folder, state, one, taken) for state, one in zip(found, figures, strict=True)]


def _figures(folder: CohortFolder, state: State) -> Figures:
    if state.state != DONE or state.record is None:
        return {}
    digest = state.record.digest
    figures = summaries.read(folder, state.row.id, digest)
    if figures is None:
        # Somebody deleted it: the store has all that is needed.
        summaries.summarise(folder, state.row.id, digest)
        figures = summaries.read(folder, state.row.id, digest) or {}
    return {name: value for name, value in figures.items() if name not in LEFT_OUT}


def _slide_row(folder: CohortFolder, state: State, figures: Figures, taken: set[str]) -> Row:
    row, done = state.row, state.state == DONE
    return {
        "level": SLIDE,
        "id": row.label,
        "patient": row.patient or None,
        "state": state.state,
        "error": _printable(state.error) or None,
        "slides": int(done),
        "slide": _printable(shown(row.slide)),
        "store": str(folder.store(row.id).relative_to(folder.root)) if done else None,
        **{kept_name(name, taken): text or None for name, text in row.kept.items()},
        **figures,
    }


def _printable(text: str) -> str:
    """File names may hold bytes that are no text; a table may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def kept_name(name: str, taken: set[str]) -> str:
    """A column of the list that is called as one of ours gets another name instead of hiding it."""
    return f"list_{name}" if name in taken else name


def patient_rows(slides: Sequence[Row]) -> list[Row]:
    """One a patient, by name. Slides without a patient belong to none."""
    by_patient: dict[str, list[Row]] = {}
    for row in slides:
        if row["patient"] is not None:
            by_patient.setdefault(row["patient"], []).append(row)
    return [_patient_row(patient, by_patient[patient]) for patient in sorted(by_patient)]


def _patient_row(patient: str, slides: Sequence[Row]) -> Row:
    done = [row for row in slides if row["state"] == DONE]
    state = "missing" if not done else "partial" if len(done) < len(slides) else DONE
    own = dict.fromkeys(OWN)
    own |= {"level": PATIENT, "id": patient, "patient": patient, "state": state, "slides": len(done)}
    figures = pooled([_without(row) for row in done]) if done else _common(slides)
    return {**figures, **own}


def _without(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in OWN}


def _common(slides: Sequence[Row]) -> Row:
    """What the list says alike of all slides of a patient, such as the outcome, though none is done."""
    texts = [{name: value for name, value in _without(row).items() if isinstance(value, str)} for row in slides]
    return {name: value for name, value in texts[0].items() if all(one.get(name) == value for one in texts)}
