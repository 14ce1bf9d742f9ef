"""Statistics per class from a stream: exact integers and counts, so its order and its pieces do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_nuc.types import Float64, Int64

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# 256 bins per octave from 2^-8 to 2^24 um2: a bin is 0.27 % wide. For a usual nucleus, this is an eighth of a
# pixel at 40x.
_LOW_OCTAVE, _HIGH_OCTAVE, _BINS_PER_OCTAVE = -8, 24, 256
_BINS = (_HIGH_OCTAVE - _LOW_OCTAVE) * _BINS_PER_OCTAVE
# Areas are summed as integer multiples of 2^-20 um2, whose sum is the same in any order.
_FIXED = 2.0**20


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
        quantiles = zip(QUANTILES, self.quantiles_um2, strict=True)
        return {
            "count": self.count,
            "share": self.share,
            "per_mm2": self.per_mm2,
            "area_share_of_tissue": self.area_share_of_tissue,
            "area_um2_mean": self.mean_um2,
            **{f"area_um2_q{round(q * 100):02d}": value for q, value in quantiles},
        }


class ClassCounter:
    """Counts and areas per class. Rows may come in any order and in any pieces: the result is the same."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        size = len(self._names)
        self._histogram = np.zeros((size, _BINS), np.int64)
        self._sums = [0] * size
        self._least, self._most = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, class_id: Int64, area_um2: Float64) -> None:
        octaves = np.log2(np.maximum(area_um2, 2.0**_LOW_OCTAVE)) - _LOW_OCTAVE
        bins = np.clip((octaves * _BINS_PER_OCTAVE).astype(np.int64), 0, _BINS - 1)
        fixed = np.round(area_um2 * _FIXED).astype(np.int64)
        flat = np.bincount(class_id * _BINS + bins, minlength=self._histogram.size)
        self._histogram += flat.reshape(self._histogram.shape)
        np.minimum.at(self._least, class_id, area_um2)
        np.maximum.at(self._most, class_id, area_um2)
        for label in np.unique(class_id):
            self._sums[label] += int(fixed[class_id == label].sum())

    @property
    def area_um2(self) -> float:
        return sum(self._sums) / _FIXED

    @property
    def counts(self) -> list[int]:
        return [int(count) for count in self._histogram.sum(axis=1)]

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
            quantiles_um2=tuple(self._quantile(label, count, q) for q in QUANTILES),
        )

    def _quantile(self, label: int, count: int, q: float) -> float:
        """Linear between the places of neighbouring order statistics, geometric inside of a bin."""
        if not count:
            return float("nan")
        ends = np.cumsum(self._histogram[label])
        place = q * (count - 1) + 0.5
        area_bin = int(np.searchsorted(ends, place, side="left"))
        inside = (place - (ends[area_bin - 1] if area_bin else 0)) / self._histogram[label, area_bin]
        area = 2.0 ** (_LOW_OCTAVE + (area_bin + inside) / _BINS_PER_OCTAVE)
        return float(np.clip(area, self._least[label], self._most[label]))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
