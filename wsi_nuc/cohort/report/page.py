"""The page of a cohort: what it says, and the small pictures in it.

`templates/page.html` says how it looks, and escapes what comes from a list or a slide.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import wsi_nuc
from wsi_nuc.cohort.collect import Collected, gather
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.report.figures import Outlier, figures_of, histogram, outliers, values_of
from wsi_nuc.cohort.state import counts
from wsi_nuc.cohort.tables import Row
from wsi_nuc.report.page import report_path
from wsi_nuc.report.pictures import data_uri, thumbnail
from wsi_nuc.report.text import environment

UNLIKE = "unlike_training_images"
MOST_THUMBNAILS, MOST_ROWS = 240, 2000
# Of a thumbnail, and of a histogram with its foot line.
EDGE_PX, QUALITY = 168, 72
WIDTH, HEIGHT, FOOT = 320, 110, 18


def write_report(folder: CohortFolder) -> Collected:
    """Write `report.html` from the results so far. That is possible at any time."""
    plan, got = load(folder), gather(folder)
    done = [row for row in got.slides if row["state"] == DONE]
    figures = figures_of([column.name for column in got.columns])
    values = [(figure, values_of(figure, done)[1]) for figure in figures]
    far = outliers(figures, done)
    counted = counts(got.states)
    page = (
        environment("wsi_nuc.cohort.report")
        .get_template("page.html")
        .render(
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
            pages=_pages(folder, done),
            patients=got.patients,
            done=done,
            most_rows=MOST_ROWS,
            width=WIDTH,
            height=HEIGHT,
            foot=FOOT,
        )
    )
    folder.write(folder.report, page.encode("utf-8", "backslashreplace"))
    return got


def _tiles(counted: dict[str, int], got: Collected, done: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The tiles at the top: state (it gives the colour), number, and what it counts."""
    tissue = sum(row.get("tissue_mm2") or 0.0 for row in done)
    return [
        *((state, f"{count:,}", state) for state, count in counted.items()),
        ("", f"{len(got.patients):,}", "patients"),
        ("", f"{tissue:,.1f}", "mm² of tissue"),
        ("", f"{sum(row.get('nuclei') or 0 for row in done):,}", "nuclei"),
    ]


def _warnings(plan: Plan, done: Sequence[Row]) -> list[tuple[str, str]]:
    """Slide and text: what the plan saw, and which slides look unlike the images that the model was trained on."""
    seen = [(row.label, text) for row in plan.runnable if row.facts for text in row.facts.warnings]
    return seen + [(row["id"], f"unlike the training images: {row[UNLIKE]}") for row in done if row.get(UNLIKE)]


def _pictures(folder: CohortFolder, done: Sequence[Row], far: Sequence[Outlier]) -> list[tuple[Row, bool, str]]:
    """Row of a slide, whether it is marked, and its picture.

    Outliers and slides without nuclei come first and are marked. The others fill the room, evenly chosen.
    """
    marked = {outlier.id for outlier in far} | {row["id"] for row in done if not row.get("nuclei")}
    chosen = [row for row in done if row["id"] in marked][:MOST_THUMBNAILS]
    others = [row for row in done if row["id"] not in marked]
    room = min(MOST_THUMBNAILS - len(chosen), len(others))
    chosen += [others[i * len(others) // room] for i in range(room)]
    return [(row, row["id"] in marked, _small(folder.store(row["id"]))) for row in chosen]


def _pages(folder: CohortFolder, done: Sequence[Row]) -> dict[str, str]:
    """The address of each slide's own page, from the page of the cohort, for those that have one."""
    pages = ((row["id"], report_path(folder.store(row["id"]))) for row in done[:MOST_ROWS])
    return {name: quote(os.path.relpath(page, folder.root)) for name, page in pages if page.is_file()}


def _small(store: Path) -> str:
    """The slide's thumbnail as text for the page, at most `EDGE_PX` wide and high; "" if it cannot be read."""
    made = thumbnail(store, EDGE_PX)
    return data_uri(made, quality=QUALITY) if made is not None else ""
