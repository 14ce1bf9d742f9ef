"""The rows of a cohort's table: one per slide of the list, whatever became of it, and one per patient.

The figures of a slide are computed once, when it is done, and kept in a small file: collecting ten thousand slides
reads only these files.

The figures of a patient come from those of the slides: sums, and weighted means. A density is weighted by usable
tissue, a share by nuclei, a mean area by the nuclei of its class; each is then what one slide with all of the
tissue would have. Quantiles, enrichments and measures of spread cannot be pooled exactly; they get their mean by
nuclei.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.records import DONE, read_json
from wsi_nuc.cohort.state import State
from wsi_nuc.features.summary import slide_summary
from wsi_nuc.slides.address import shown

Row = dict[str, Any]
SLIDE, PATIENT = "slide", "patient"
OWN = ("level", "id", "patient", "state", "error", "slides", "slide", "store")
# A figure that the list itself gives: the name of the slide's file.
LEFT_OUT = ("slide",)
Figures = dict[str, float | int | str]
SUMMED = ("nuclei", "tissue_mm2", "usable_mm2", "squares_in_tissue")
SUMMED_FIRST = ("count_", "tiles_")
BY_TISSUE = ("nuclei_per_mm2", "nuclei_area_share")
BY_TISSUE_FIRST = ("per_mm2_", "area_share_of_tissue_")
OF_ONE_SLIDE = ("width_px", "height_px", "slide_sha256", "unlike_training_images")


def slide_rows(folder: CohortFolder, slides: Sequence[State]) -> list[Row]:
    """One row per slide, in the order of the list. A slide that is not done has no figures."""
    figures = [_figures(folder, state) for state in slides]
    taken = {*OWN, *(name for measured in figures for name in measured)}
    return [_slide_row(folder, *pair, taken) for pair in zip(slides, figures, strict=True)]


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
    """Text for the table. File names may hold bytes that are not text, and a table may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def kept_name(name: str, taken: set[str]) -> str:
    """The name of a column of the list in the table: another one if we have a column of that name."""
    return f"list_{name}" if name in taken else name


def patient_rows(slides: Sequence[Row]) -> list[Row]:
    """One row per patient, sorted by name. Slides without a patient are left out."""
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
    """The cells that are the same for all slides of a patient, such as the outcome, if no slide is done."""
    texts = [{name: value for name, value in _without(row).items() if isinstance(value, str)} for row in slides]
    return {name: value for name, value in texts[0].items() if all(text.get(name) == value for text in texts)}


def summarise(folder: CohortFolder, slide_id: str, digest: str) -> None:
    """Keep the figures of a published slide in its file. A figure that is unknown (NaN) has no entry there."""
    if read(folder, slide_id, digest) is not None:
        return
    figures = {key: value for key, value in slide_summary(folder.store(slide_id)).items() if _known(value)}
    document = {"digest": digest, "figures": figures}
    folder.write(folder.summary(slide_id), json.dumps(document, allow_nan=False).encode() + b"\n")


def _known(value: float | int | str) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def read(folder: CohortFolder, slide_id: str, digest: str) -> Figures | None:
    """The kept figures of the result with this digest; None if they are missing or those of another result."""
    document = read_json(folder.summary(slide_id))
    if document is None or document.get("digest") != digest:
        return None
    # All slides share the strings of the names: a third of the memory of ten thousand slides.
    return {sys.intern(name): value for name, value in document["figures"].items()}


def pooled(slides: Sequence[Row]) -> Row:
    """The figures of a patient from those of its done slides. A mean leaves out unknown figures."""
    names = dict.fromkeys(name for row in slides for name in row if name not in OF_ONE_SLIDE)
    return {name: _pool(name, slides) for name in names}


def _pool(name: str, slides: Sequence[Row]) -> Any:
    known = [row for row in slides if row.get(name) is not None]
    values = [row[name] for row in known]
    if name == "mpp" or any(isinstance(value, str) for value in values):
        return values[0] if len(known) == len(slides) and len(set(values)) == 1 else None
    if name in SUMMED or name.startswith(SUMMED_FIRST):
        return sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)
    weights = [float(row.get(_weight_of(name, row)) or 0.0) for row in known]
    total = math.fsum(weights)
    if not total:
        return None
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _weight_of(name: str, row: Row) -> str:
    """The column whose values are the weights for `name`."""
    if name in BY_TISSUE or name.startswith(BY_TISSUE_FIRST):
        return "usable_mm2"
    if name.startswith("area_um2_"):
        # The name is area_um2_STATISTIC_CLASS, and a class may contain underscores.
        counted = f"count_{name.removeprefix('area_um2_').partition('_')[2]}"
        if counted in row:
            return counted
    return "nuclei"
