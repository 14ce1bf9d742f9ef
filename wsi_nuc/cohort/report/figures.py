"""The figures of a cohort that a page shows: which there are, how they are spread, and which slides stand out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_nuc.cohort.tables import Row
from wsi_nuc.types import Float64

# An outlier is more than FAR robust standard deviations from the median; below FEWEST slides there are none.
FAR, FEWEST = 3.5, 8
MAD_TO_SIGMA = 1.4826
BINS = 32
# Above this ratio of the largest to the smallest value the axis is logarithmic.
WIDE = 10.0
OF_CLASSES = (("share_", "share of {}", False), ("area_um2_mean_", "mean area of {}, µm²", True))


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
