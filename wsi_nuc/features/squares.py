"""How evenly nuclei and classes are spread: counts on squares of the tissue."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wsi_nuc.store.column_record import DERIVED, SUM, Column, about_mean_by, mean_by
from wsi_nuc.types import Float64, Int64

EDGE_UM = 250.0

_NO_SQUARE = "no square has its middle in usable tissue"
_NO_NUCLEI = f"{_NO_SQUARE}, or none of these squares holds a nucleus"
_SQUARES = "the squares that `squares_in_tissue` counts"
FIGURES = (
    Column(
        "squares_in_tissue",
        "",
        f"squares of {EDGE_UM:.0f} um whose middle lies in usable tissue, on a grid from the slide's corner",
        "whole numbers from 0",
        patient=SUM,
    ),
    Column(
        "squares_empty_share",
        "",
        f"share of {_SQUARES} that hold no centroid of a nucleus",
        "0 to 1",
        _NO_SQUARE,
        patient=mean_by("squares_in_tissue"),
    ),
    Column(
        "squares_dispersion",
        "",
        f"variance (over n) over mean of the number of nuclei in {_SQUARES}: 1 for nuclei at random places, more "
        "if they gather, less if they keep apart",
        "from 0",
        _NO_NUCLEI,
        patient=about_mean_by("nuclei"),
    ),
    Column(
        "squares_gini",
        "",
        f"Gini coefficient of the number of nuclei in {_SQUARES}: 0 if all hold as many, near 1 if few hold all",
        "0 to 1",
        _NO_NUCLEI,
        patient=about_mean_by("nuclei"),
    ),
    Column(
        "class_entropy_bits",
        "bit",
        "entropy of the classes of all nuclei: -sum of share log2 share over the columns `share_{class}`",
        "0 to log2 of the number of classes",
        "the slide has no nucleus",
        patient=DERIVED,
    ),
    Column(
        "class_entropy_local_bits",
        "bit",
        f"entropy of the classes within a square of {EDGE_UM:.0f} um, averaged over all nuclei: every square that "
        "holds a nucleus counts by its nuclei, in tissue or not",
        "0 to class_entropy_bits",
        "the slide has no nucleus",
        patient=mean_by("nuclei"),
    ),
    Column(
        "class_segregation",
        "",
        "1 - `class_entropy_local_bits` / `class_entropy_bits`: 0 if every square has the mix of the slide, 1 if "
        "every square holds one class. Few nuclei per square raise it also where classes mix",
        "0 to 1",
        "all nuclei are of one class, or there is none",
        patient=DERIVED,
    ),
)


class SquareCounter:
    """Counts the nuclei of each class on a fixed grid of squares of `EDGE_UM`, 16 squares per mm2."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._counts: dict[tuple[int, int], Int64] = {}

    def add(self, xy_um: Float64, class_id: Int64) -> None:
        if not len(class_id):
            return
        squares, place = np.unique(np.floor(xy_um / EDGE_UM).astype(np.int64), axis=0, return_inverse=True)
        flat = np.bincount(place.ravel() * self._classes + class_id, minlength=len(squares) * self._classes)
        for square, counts in zip(squares.tolist(), flat.reshape(-1, self._classes), strict=True):
            key = (square[0], square[1])
            self._counts[key] = self._counts.get(key, np.zeros(self._classes, np.int64)) + counts

    def figures(self, tissue: Any, mpp: float) -> dict[str, float]:
        """`tissue`: array of Shapely polygons in level-0 pixels. What is said of densities counts the squares
        whose middle lies in it. What is said of classes counts all nuclei, wherever they are."""
        totals = self._over(tissue, mpp).sum(axis=1)
        every = np.array([self._counts[key] for key in sorted(self._counts)], np.int64).reshape(-1, self._classes)
        everywhere, locally = entropy(every.sum(axis=0)), _mean_entropy(every)
        return {
            "squares_in_tissue": float(len(totals)),
            "squares_empty_share": float(np.mean(totals == 0)) if len(totals) else math.nan,
            "squares_dispersion": _dispersion(totals),
            "squares_gini": _gini(totals),
            "class_entropy_bits": everywhere,
            "class_entropy_local_bits": locally,
            "class_segregation": segregation(locally, everywhere),
        }

    def _over(self, tissue: Any, mpp: float) -> Int64:
        """Squares x classes."""
        rows = [self._counts.get(key, np.zeros(self._classes, np.int64)) for key in squares_in(tissue, mpp)]
        return np.array(rows, np.int64).reshape(-1, self._classes)


def squares_in(tissue: Any, mpp: float) -> list[tuple[int, int]]:
    """Column and row of the squares whose middle lies in one of the polygons, in order."""
    import shapely

    edge_l0 = EDGE_UM / mpp
    squares: set[tuple[int, int]] = set()
    for polygon in tissue:
        x0, y0, x1, y1 = shapely.bounds(polygon)
        columns = np.arange(math.floor(x0 / edge_l0), math.floor(x1 / edge_l0) + 1)
        rows = np.arange(math.floor(y0 / edge_l0), math.floor(y1 / edge_l0) + 1)
        shapely.prepare(polygon)
        for row in rows.tolist():
            inside = shapely.contains_xy(polygon, (columns + 0.5) * edge_l0, (row + 0.5) * edge_l0)
            squares |= {(column, row) for column in columns[inside].tolist()}
    return sorted(squares)


def _dispersion(totals: Int64) -> float:
    """Variance over mean: 1 for nuclei at random places, more if they gather, less if they keep apart."""
    return float(np.var(totals) / np.mean(totals)) if totals.sum() else math.nan


def _gini(totals: Int64) -> float:
    """0 if all squares have equally many nuclei, near 1 if few squares have them all."""
    if not totals.sum():
        return math.nan
    place = 2 * np.arange(1, len(totals) + 1) - len(totals) - 1
    return float((place * np.sort(totals)).sum() / (len(totals) * totals.sum()))


def segregation(locally: float, everywhere: float) -> float:
    """How far the mix of a square falls short of the slide's; NaN with one class or no nucleus."""
    return 1 - locally / everywhere if everywhere > 0 else math.nan


def entropy(counts: Int64) -> float:
    """Bits of the mix of classes; NaN without a nucleus."""
    total = counts.sum()
    if not total:
        return math.nan
    share = counts[counts > 0] / total
    return float(-(share * np.log2(share)).sum()) + 0.0


def _mean_entropy(table: Int64) -> float:
    """The mean entropy of the squares, weighted by their nuclei."""
    totals = table.sum(axis=1)
    if not totals.sum():
        return math.nan
    return float(sum(entropy(row) * n for row, n in zip(table, totals, strict=True) if n) / totals.sum())


def rows_by_square(square: Float64, rows: Int64) -> list[Int64]:
    """The `rows` of each square that has any, square by square. `square`: N x 2, the square of every row."""
    if not len(rows):
        return []
    order = rows[np.lexsort((rows, square[rows, 0], square[rows, 1]))]
    cuts = np.flatnonzero(np.any(np.diff(square[order], axis=0) != 0, axis=1)) + 1
    return np.split(order, cuts)
