"""The page of a cohort: what it says, and the small pictures in it.

`templates/page.html` says how it looks, and escapes what comes from a list or a slide.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import wsi_nuc
from wsi_nuc.cohort.collect import Collected, gather
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.report.figures import Outlier, figures_of, histogram, outliers, values_of
from wsi_nuc.cohort.state import counts
from wsi_nuc.cohort.tables import Row
from wsi_nuc.errors import StorageError
from wsi_nuc.store.reading import read_thumbnail

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
    """The value in short: three digits below a thousand, whole numbers above, "" if it is unknown."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _count(value: int | None) -> str:
    return f"{value:,}" if value is not None else ""


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
    return [(row, row["id"] in marked, data_uri(folder.store(row["id"]))) for row in chosen]


def data_uri(store: Path) -> str:
    """The slide's thumbnail as text for the page, at most `EDGE_PX` wide and high; "" if it cannot be read."""
    try:
        rgb = read_thumbnail(store)
    except StorageError:
        return ""
    scale = min(1.0, EDGE_PX / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = cv2.resize(np.ascontiguousarray(rgb[:, :, ::-1]), size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}" if done else ""
