"""Mean and spread of every feature over a slide, from the table of its store, a stretch of rows at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.safezarr import open_array, read_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import layout
from wsi_nuc.types import Float64, Int64

# Numbers that a mean says nothing about: the classes' probabilities, an embedding, a direction.
LEFT_OUT_FAMILIES = ("class", "embedding")
LEFT_OUT = ("orientation_rad",)
_ROWS = 16_384
_MOST_FEATURES = 100_000


def feature_means(store: Path, nuclei: int) -> dict[str, float]:
    """`feature_mean_NAME` and `feature_sd_NAME` over those of the `nuclei` that have it; NaN where none has."""
    table = contents(store) / layout.NUCLEI_TABLE
    try:
        values = open_array(table / "X")
        names, families = (
            read_array(table / "var" / name, _MOST_FEATURES).tolist() for name in ("_index", "family")
        )
        if values.shape != (nuclei, len(names)):
            raise ValueError(f"its shape {values.shape} is not that of {len(names)} columns for {nuclei} nuclei")
        kept = [i for i, name in enumerate(names) if families[i] not in LEFT_OUT_FAMILIES and name not in LEFT_OUT]
        mean, sd = _mean_sd(values, np.array(kept, np.int64))
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(table, f"cannot be read ({error})", "`wsi-nuc verify` says what is wrong") from None
    out = {f"feature_mean_{names[i]}": float(value) for i, value in zip(kept, mean, strict=True)}
    return out | {f"feature_sd_{names[i]}": float(value) for i, value in zip(kept, sd, strict=True)}


def _mean_sd(values: Any, columns: Int64) -> tuple[Float64, Float64]:
    """Stretches merge as Chan, Golub and LeVeque have it: no square of a large mean is taken from another."""
    count, mean, squares = (np.zeros(len(columns)) for _ in range(3))
    for start in range(0, values.shape[0], _ROWS):
        some = np.asarray(values[start : start + _ROWS], np.float64)[:, columns]
        known = np.isfinite(some)
        n = known.sum(axis=0)
        here = np.where(known, some, 0).sum(axis=0) / np.maximum(n, 1)
        off = np.where(known, some - here, 0)
        total, gap = count + n, here - mean
        mean = mean + gap * n / np.maximum(total, 1)
        squares = squares + (off**2).sum(axis=0) + gap**2 * count * n / np.maximum(total, 1)
        count = total
    spread = np.sqrt(squares / np.maximum(count, 1))
    return np.where(count > 0, mean, np.nan), np.where(count > 0, spread, np.nan)
