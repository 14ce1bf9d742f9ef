"""Statistics per class from a stream. Its order and its pieces do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_nuc.store.column_record import SUM, Column, about_mean_by, mean_by
from wsi_nuc.types import Float64, Int64

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Areas are summed as integer multiples of 2^-20 um2, whose sum is the same in any order.
_FIXED = 2.0**20

_NO_NUCLEI = "the slide has no nucleus"
_NONE_OF_CLASS = "no nucleus of the class"
_NO_TISSUE = "no usable tissue"
CLASS = Column("class", "", "name of the class", "the names of the model's classes, in its order")
TISSUE = (
    Column("tissue_mm2", "mm2", "area of the tissue that was searched", "from 0", patient=SUM),
    Column(
        "usable_mm2",
        "mm2",
        "`tissue_mm2` less the places that could not be decoded or computed; all densities refer to it",
        "0 to tissue_mm2",
        patient=SUM,
    ),
)
FIGURES = (
    Column("count", "", "nuclei of the class", "whole numbers from 0", kind=int, patient=SUM),
    Column("share", "", "`count` over the number of all nuclei", "0 to 1", _NO_NUCLEI, patient=mean_by("nuclei")),
    Column("per_mm2", "1/mm2", "`count` / `usable_mm2`", "from 0", _NO_TISSUE, patient=mean_by("usable_mm2")),
    Column(
        "area_share_of_tissue",
        "",
        "total area of the nuclei of the class over `usable_mm2`",
        "from 0; above 1 only if outlines lie outside of the tissue",
        _NO_TISSUE,
        patient=mean_by("usable_mm2"),
    ),
    Column(
        "area_um2_mean",
        "um2",
        "mean area of the nuclei of the class",
        "above 0",
        _NONE_OF_CLASS,
        patient=mean_by("count_{class}"),
    ),
    *(
        Column(
            f"area_um2_q{round(q * 100):02d}",
            "um2",
            f"{q * 100:.0f} % quantile of the area of the nuclei of the class, exact: linear between order "
            "statistics, like `quantile` of NumPy, pandas and R, and `quantile_cont` of DuckDB",
            "above 0",
            _NONE_OF_CLASS,
            patient=about_mean_by("count_{class}"),
        )
        for q in QUANTILES
    ),
)
"""The figures of a class, in the order of `ClassRow.figures`."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The figures of one class of a slide. What cannot be known (no nucleus, no tissue) is NaN."""

    name: str
    count: int
    share: float
    """Of all nuclei."""
    per_mm2: float
    """Nuclei per mm2 of tissue."""
    area_share_of_tissue: float
    """The area of its nuclei, as a share of the tissue."""
    mean_um2: float
    """Mean area of its nuclei."""
    quantiles_um2: tuple[float, ...]
    """Areas at `QUANTILES`."""

    def figures(self) -> dict[str, int | float]:
        """The figures under their names in stores and tables."""
        values = (self.count, self.share, self.per_mm2, self.area_share_of_tissue, self.mean_um2)
        names = (column.name for column in FIGURES)
        return dict(zip(names, (*values, *self.quantiles_um2), strict=True))


class ClassCounter:
    """Counts and areas per class. Rows may come in any order and in any pieces: the result is the same.

    It keeps the area of every nucleus, which takes 8 bytes: exact quantiles need them all.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._areas: list[list[Float64]] = [[] for _ in self._names]
        self._sums = [0] * len(self._names)

    def add(self, class_id: Int64, area_um2: Float64) -> None:
        fixed = np.round(area_um2 * _FIXED).astype(np.int64)
        for label in np.unique(class_id).tolist():
            rows = class_id == label
            self._areas[label].append(area_um2[rows])
            self._sums[label] += int(fixed[rows].sum())

    @property
    def area_um2(self) -> float:
        return sum(self._sums) / _FIXED

    @property
    def median_um2(self) -> float:
        """The median area of the nuclei of all classes; NaN without one."""
        pieces = [piece for areas in self._areas for piece in areas]
        return float(np.median(np.concatenate(pieces), overwrite_input=True)) if pieces else float("nan")

    @property
    def counts(self) -> list[int]:
        return [sum(map(len, pieces)) for pieces in self._areas]

    def rows(self, tissue_mm2: float) -> list[ClassRow]:
        """One row per class. `tissue_mm2`: the tissue that could be looked at."""
        total = sum(self.counts)
        return [self._row(label, count, total, tissue_mm2) for label, count in enumerate(self.counts)]

    def _row(self, label: int, count: int, total: int, tissue_mm2: float) -> ClassRow:
        area_um2 = self._sums[label] / _FIXED
        return ClassRow(
            name=self._names[label],
            count=count,
            share=_ratio(count, total),
            per_mm2=_ratio(count, tissue_mm2),
            area_share_of_tissue=_ratio(area_um2, tissue_mm2 * 1e6),
            mean_um2=_ratio(area_um2, count),
            quantiles_um2=self._quantiles(label),
        )

    def _quantiles(self, label: int) -> tuple[float, ...]:
        if not self._areas[label]:
            return (float("nan"),) * len(QUANTILES)
        return tuple(np.quantile(np.concatenate(self._areas[label]), QUANTILES).tolist())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
