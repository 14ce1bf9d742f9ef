"""Arithmetic over the edges of many rings at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class Edges:
    """M edges of N rings: from `x`, `y` to `next_x`, `next_y`; `length` of each; `ring` that it belongs to.

    Coordinates are relative to the `origin` (N x 2) of their ring, its first vertex: at 10^5 px from the corner
    of the slide the products would eat the digits of small areas.
    """

    x: Float64
    y: Float64
    next_x: Float64
    next_y: Float64
    length: Float64
    ring: Int64
    starts: Int64
    origin: Float64

    @classmethod
    def of(cls, xy: Float64, offsets: Int64) -> Edges:
        starts, lengths = offsets[:-1], np.diff(offsets)
        ring = np.repeat(np.arange(len(starts)), lengths)
        origin = xy[starts]
        x, y = xy[:, 0] - origin[ring, 0], xy[:, 1] - origin[ring, 1]
        next_x, next_y = (_following(values, offsets) for values in (x, y))
        return cls(x, y, next_x, next_y, np.hypot(next_x - x, next_y - y), ring, starts, origin)

    def sum(self, values: Float64) -> Float64:
        """N: the values of each ring's edges added up."""
        total: Float64 = np.add.reduceat(values, self.starts)
        return total


def _following(values: Float64, offsets: Int64) -> Float64:
    out = np.empty_like(values)
    out[:-1] = values[1:]
    out[offsets[1:] - 1] = values[offsets[:-1]]
    return out


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Float64:
    """part / whole, NaN where the whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole != 0, part / whole, np.nan)
