"""What the page tells. `templates/page.html` says how it looks, and escapes what comes from a list or a slide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wsi_nuc
from wsi_nuc.cohort.collect import Collected, gather
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.report.histogram import FOOT, HEIGHT, WIDTH, histogram
from wsi_nuc.cohort.report.outliers import Outlier, figures_of, outliers, values_of
from wsi_nuc.cohort.report.thumbnails import data_uri
from wsi_nuc.cohort.state import counts

Row = dict[str, Any]

UNLIKE = "unlike_training_images"
MOST_THUMBNAILS, MOST_ROWS = 240, 2000


def write_report(folder: CohortFolder) -> Collected:
    """`report.html`, from what there is now; it can be written at any time."""
    plan, got = load(folder), gather(folder)
    done = [row for row in got.slides if row["state"] == DONE]
    figures = figures_of(got.columns)
    values = [(figure, values_of(figure, done)[1]) for figure in figures]
    far = outliers(figures, done)
    counted = counts(got.states)
    page = _template().render(
        name=folder.root.name,
        model=str(plan.settings.get("model", "")),
        version=wsi_nuc.__version__,
        slides=len(got.states),
        counted=counted,
        tiles=_tiles(counted, got, done),
        not_done=[state for state in got.states if state.state != DONE],
        warnings=_warnings(plan, done),
        histograms=[(figure, histogram(figure, known)) for figure, known in values if known.any()],
        outliers=far,
        pictures=_pictures(folder, done, far),
        patients=got.patients,
        done=done,
        most_rows=MOST_ROWS,
        width=WIDTH,
        height=HEIGHT,
        foot=FOOT,
    )
    folder.write(folder.report, page.encode("utf-8", "backslashreplace"))
    return got


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("wsi_nuc.cohort.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "count": _count}
    return environment.get_template("page.html")


def number(value: float | None) -> str:
    """Short: three digits below a thousand, whole above; nothing where it is not known."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _count(value: int | None) -> str:
    return f"{value:,}" if value is not None else ""


def _tiles(counted: dict[str, int], got: Collected, done: Sequence[Row]) -> list[tuple[str, str, str]]:
    """State (its colour), figure and what it counts."""
    tissue = sum(row.get("tissue_mm2") or 0.0 for row in done)
    return [
        *((state, f"{count:,}", state) for state, count in counted.items()),
        ("", f"{len(got.patients):,}", "patients"),
        ("", f"{tissue:,.1f}", "mm² of tissue"),
        ("", f"{sum(row.get('nuclei') or 0 for row in done):,}", "nuclei"),
    ]


def _warnings(plan: Plan, done: Sequence[Row]) -> list[tuple[str, str]]:
    """What the plan saw, and which slides look like none that the model was trained on."""
    seen = [(row.label, text) for row in plan.runnable if row.facts for text in row.facts.warnings]
    return seen + [(row["id"], f"unlike the training images: {row[UNLIKE]}") for row in done if row.get(UNLIKE)]


def _pictures(folder: CohortFolder, done: Sequence[Row], far: Sequence[Outlier]) -> list[tuple[Row, bool, str]]:
    """Slide, whether it is marked, and its picture.

    Outliers and slides without nuclei first; of the others as many as there is room for, evenly chosen.
    """
    marked = {outlier.id for outlier in far} | {row["id"] for row in done if not row.get("nuclei")}
    chosen = [row for row in done if row["id"] in marked][:MOST_THUMBNAILS]
    others = [row for row in done if row["id"] not in marked]
    room = min(MOST_THUMBNAILS - len(chosen), len(others))
    chosen += [others[i * len(others) // room] for i in range(room)]
    return [(row, row["id"] in marked, data_uri(folder.store(row["id"]))) for row in chosen]
