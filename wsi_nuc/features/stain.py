"""How much of each stain is in a nucleus and around it."""

from __future__ import annotations

import numpy as np

from wsi_nuc.features.coverage import Coverage, Groups
from wsi_nuc.features.pixels import OD, Int16
from wsi_nuc.features.shape import ratio
from wsi_nuc.types import Float64

QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}

Columns = dict[str, Float64]


def stain_features(key: str, stain: Int16, cover: Coverage, quantiles: bool) -> Columns:
    """Column name -> N values, of one stain in units of `OD`; `key` begins the names."""
    flat = stain.ravel()
    inside, around = flat[cover.inside.pixel], flat[cover.ring.pixel]
    mean, sd = mean_sd(inside, cover.inside)
    ring_mean, ring_sd = mean_sd(around, cover.ring)
    named = {"mean": mean, "sd": sd, **(_quantiles(inside, cover.inside) if quantiles else {})}
    named |= {"ring_mean": ring_mean, "ring_sd": ring_sd, "contrast": mean - ring_mean}
    return {f"{key}_{name}": values * OD for name, values in named.items()}


def mean_sd(values: Int16, groups: Groups) -> tuple[Float64, Float64]:
    """Of whole numbers, from exact sums; NaN without a pixel."""
    wide = values.astype(np.float64)
    mean, square = (ratio(groups.sum(one), groups.count) for one in (wide, wide * wide))
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _quantiles(values: Int16, groups: Groups) -> Columns:
    """Linear between order statistics, as NumPy's; all nuclei in one sort."""
    # Stable sorts of 16-bit numbers are radix sorts.
    by_value = np.argsort(values, kind="stable")
    by_owner = np.argsort(groups.owner[by_value].astype(np.uint16), kind="stable")
    ordered = values[by_value[by_owner]].astype(np.int64)
    some = np.flatnonzero(groups.count)
    out = {}
    for name, q in QUANTILES.items():
        place = q * (groups.count[some] - 1)
        low = np.floor(place).astype(np.int64)
        first = groups.starts[some] + low
        following = np.minimum(first + 1, groups.starts[some] + groups.count[some] - 1)
        out[name] = np.full(len(groups.count), np.nan)
        out[name][some] = ordered[first] + (place - low) * (ordered[following] - ordered[first])
    return out
