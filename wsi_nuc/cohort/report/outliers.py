"""Slides far from the others in some figure: reasons to look at them, not verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_nuc.types import Float64

Row = dict[str, Any]

# Robust standard deviations from the median; below so many slides a spread means nothing.
FAR, FEWEST = 3.5, 8
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True)
class Figure:
    """`log`: it spreads by factors, and is compared so."""

    name: str
    title: str
    log: bool = False


@dataclass(frozen=True, slots=True)
class Outlier:
    id: str
    figure: Figure
    value: float
    median: float
    sigmas: float


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
    found = [figure for figure in GENERAL if figure.name in columns]
    for prefix, title, log in OF_CLASSES:
        names = [name for name in columns if name.startswith(prefix)]
        found += [Figure(name, title.format(name.removeprefix(prefix)), log) for name in names]
    return found


def values_of(figure: Figure, rows: Sequence[Row]) -> tuple[list[str], Float64]:
    """Ids and values of the slides where the figure is known (and positive, if it spreads by factors)."""
    known = [row for row in rows if row.get(figure.name) is not None]
    known = [row for row in known if row[figure.name] > 0 or not figure.log]
    return [row["id"] for row in known], np.array([row[figure.name] for row in known], np.float64)


def outliers(figures: Sequence[Figure], rows: Sequence[Row]) -> list[Outlier]:
    """The farthest first."""
    found = [one for figure in figures for one in _of(figure, rows)]
    return sorted(found, key=lambda one: (-abs(one.sigmas), one.id, one.figure.name))


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
