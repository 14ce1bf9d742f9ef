"""Mean and standard deviation of every feature over the nuclei of a slide, from its table, stretch by stretch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.features.neighbourhood import needs
from wsi_nuc.safezarr import open_array, read_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import layout
from wsi_nuc.store.reading import class_names
from wsi_nuc.types import Float64, Int64

# Columns whose mean says nothing: the probabilities of classes, an embedding, a direction.
LEFT_OUT_FAMILIES = ("class", "embedding")
LEFT_OUT = ("orientation_rad",)
_ROWS = 16_384
_MOST_FEATURES = 100_000


def feature_means(store: Path, nuclei: int) -> dict[str, float]:
    """`feature_mean_NAME` and `feature_sd_NAME` over the nuclei that have a value; NaN where none has.

    A value that stands for a lack of neighbours does not count. `nuclei`: how many rows the table must have.
    """
    table = contents(store) / layout.NUCLEI_TABLE
    try:
        values = open_array(table / "X")
        names, families = (
            read_array(table / "var" / name, _MOST_FEATURES).tolist() for name in ("_index", "family")
        )
        if values.shape != (nuclei, len(names)):
            raise ValueError(f"its shape {values.shape} is not that of {len(names)} columns for {nuclei} nuclei")
        kept = [i for i, name in enumerate(names) if families[i] not in LEFT_OUT_FAMILIES and name not in LEFT_OUT]
        place = {name: i for i, name in enumerate(names)}
        # Tables of earlier versions have no column that counts up to five, and NaN in place of the value.
        rules = [
            (kept.index(place[name]), place[need.counted_by], need.least)
            for name, need in needs(class_names(store)).items()
            if need.counted_by in place
        ]
        mean, sd = _mean_sd(values, np.array(kept, np.int64), rules)
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(table, f"cannot be read ({error})", "`wsi-nuc verify` says what is wrong") from None
    out = {f"feature_mean_{names[i]}": float(value) for i, value in zip(kept, mean, strict=True)}
    return out | {f"feature_sd_{names[i]}": float(value) for i, value in zip(kept, sd, strict=True)}


def _mean_sd(values: Any, columns: Int64, rules: Sequence[tuple[int, int, int]]) -> tuple[Float64, Float64]:
    """Merges stretches of rows as Chan, Golub and LeVeque do, which never subtracts large squares.

    `rules`: a place among `columns`, the column of `values` that it needs, and how much of it.
    """
    count, mean, squares = (np.zeros(len(columns)) for _ in range(3))
    for start in range(0, values.shape[0], _ROWS):
        every = np.asarray(values[start : start + _ROWS], np.float64)
        stretch = every[:, columns]
        known = np.isfinite(stretch)
        for column, counted_by, least in rules:
            known[:, column] &= every[:, counted_by] >= least
        n = known.sum(axis=0)
        here = np.where(known, stretch, 0).sum(axis=0) / np.maximum(n, 1)
        off = np.where(known, stretch - here, 0)
        total, gap = count + n, here - mean
        mean = mean + gap * n / np.maximum(total, 1)
        squares = squares + (off**2).sum(axis=0) + gap**2 * count * n / np.maximum(total, 1)
        count = total
    spread = np.sqrt(squares / np.maximum(count, 1))
    return np.where(count > 0, mean, np.nan), np.where(count > 0, spread, np.nan)
