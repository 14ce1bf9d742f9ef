"""What the report's page shows: counts, warnings, histograms, outliers, thumbnails and tables.

Outliers are slides far from the others in a figure: reasons to look at them, not verdicts. How the page looks is
said in `templates/page.html`, which also draws the histograms and escapes everything that comes from a list or a
slide.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import wsi_nuc
from wsi_nuc.cohort.collect import Collected, gather
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.state import counts
from wsi_nuc.cohort.tables import Row
from wsi_nuc.errors import StorageError
from wsi_nuc.safezarr import read_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import layout
from wsi_nuc.types import Float64

UNLIKE = "unlike_training_images"
MOST_THUMBNAILS, MOST_ROWS = 240, 2000


def write_report(folder: CohortFolder) -> Collected:
    """Write `report.html` from the results so far. That is possible at any time."""
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


# An outlier is more than FAR robust standard deviations from the median; below FEWEST slides there are none.
FAR, FEWEST = 3.5, 8
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of the table that the report shows."""

    name: str
    title: str
    log: bool = False
    """It spreads by factors, so logarithms are compared."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """A slide far from the others in one figure."""

    id: str
    figure: Figure
    value: float
    median: float
    """Of all slides."""
    sigmas: float
    """Its distance from the median in robust standard deviations, with sign."""


GENERAL = (
    Figure("tissue_mm2", "tissue, mm²", log=True),
    Figure("nuclei_per_mm2", "nuclei per mm²", log=True),
    Figure("nuclei_area_share", "share of the tissue covered by nuclei"),
    Figure("nearest_um_mean", "distance to the nearest nucleus, µm", log=True),
    Figure("squares_gini", "unevenness of the density (Gini)"),
    Figure("class_entropy_bits", "mixture of classes, bits"),
)
OF_CLASSES = (("share_", "share of {}", False), ("area_um2_mean_", "mean area of {}, µm²", True))


def figures_of(columns: Sequence[str]) -> list[Figure]:
    """The figures that are shown: the general ones, then those of each class."""
    figures = [figure for figure in GENERAL if figure.name in columns]
    for prefix, title, log in OF_CLASSES:
        names = [name for name in columns if name.startswith(prefix)]
        figures += [Figure(name, title.format(name.removeprefix(prefix)), log) for name in names]
    return figures


def values_of(figure: Figure, rows: Sequence[Row]) -> tuple[list[str], Float64]:
    """Ids and values of the slides whose figure is known (and positive, if it spreads by factors)."""
    known = [row for row in rows if row.get(figure.name) is not None]
    known = [row for row in known if row[figure.name] > 0 or not figure.log]
    return [row["id"] for row in known], np.array([row[figure.name] for row in known], np.float64)


def outliers(figures: Sequence[Figure], rows: Sequence[Row]) -> list[Outlier]:
    """All outliers, the farthest first."""
    far = [outlier for figure in figures for outlier in _of(figure, rows)]
    return sorted(far, key=lambda outlier: (-abs(outlier.sigmas), outlier.id, outlier.figure.name))


def _of(figure: Figure, rows: Sequence[Row]) -> list[Outlier]:
    ids, values = values_of(figure, rows)
    if len(values) < FEWEST:
        return []
    scaled = np.log(values) if figure.log else values
    middle = float(np.median(scaled))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(scaled - middle)))
    if not sigma > 1e-9 * max(1.0, abs(middle)):
        return []
    sigmas = (scaled - middle) / sigma
    median = math.exp(middle) if figure.log else middle
    return [
        Outlier(ids[i], figure, float(values[i]), median, float(sigmas[i]))
        for i in np.flatnonzero(np.abs(sigmas) > FAR)
    ]


BINS = 32
WIDTH, HEIGHT, FOOT = 320, 110, 18
# Above this ratio of the largest to the smallest value the axis is logarithmic.
WIDE = 10.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """What a histogram shows, in shares of its width and height."""

    bars: list[tuple[float, float]]
    """Where each bar that is not empty begins, and its height as a share of the highest."""
    step: float
    """How wide a bar is."""
    middle: float
    """Where the line of the median is."""
    log: bool
    """Whether the axis is logarithmic."""
    slides: int
    least: float
    median: float
    most: float


def histogram(figure: Figure, values: Float64) -> Histogram:
    """`values`: at least one, all finite; positive where the figure spreads by factors."""
    wide = bool(figure.log and values.max() > WIDE * values.min())
    scaled = np.log10(values) if wide else values
    low, high = float(scaled.min()), float(scaled.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(scaled, BINS, (low, high))
    most = max(1, int(counts.max()))
    return Histogram(
        bars=[(i / BINS, count / most) for i, count in enumerate(counts.tolist()) if count],
        step=1 / BINS,
        middle=(float(np.median(scaled)) - low) / (high - low),
        log=wide,
        slides=len(values),
        least=float(values.min()),
        median=float(np.median(values)),
        most=float(values.max()),
    )


EDGE_PX, QUALITY = 168, 72
MOST_VALUES = 2**25


def data_uri(store: Path) -> str:
    """The slide's thumbnail as text for the page, at most `EDGE_PX` wide and high; "" if it cannot be read."""
    try:
        planes = read_array(contents(store) / layout.THUMBNAIL / "s0", MOST_VALUES)
    except (OSError, StorageError, ValueError, KeyError):
        return ""
    rgb = np.moveaxis(planes, 0, 2)
    scale = min(1.0, EDGE_PX / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = cv2.resize(np.ascontiguousarray(rgb[:, :, ::-1]), size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}" if done else ""
