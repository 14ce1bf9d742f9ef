"""Randomness that is a pure function of (seed, place): the reason why any tile can be drawn alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Float32, Float64, Int64

# Brings a cubic B-spline of uniform lattice values to unit variance (on average over the place).
_UNIT_VARIANCE = 3.62


def uniform(seed: int, *keys: npt.ArrayLike) -> Float64:
    """Numbers in [0, 1), one for each (broadcast) tuple of integer keys: splitmix64 chained over the keys."""
    with np.errstate(over="ignore"):
        state: Any = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64)
        for key in keys:
            state = state ^ (np.asarray(key, np.int64).astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93))
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) / 2**53)


def smoothstep(value: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[Any]:
    """0 below `low`, 1 above `high`, smooth between; keeps the dtype."""
    t = np.clip((value - float(low)) * (1 / (high - low)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=value.dtype)


def _spline(position: Float64) -> tuple[Int64, Float64]:
    """First lattice index and the four cubic B-spline weights (N x 4) of each position."""
    cell = np.floor(position)
    t = position - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    return cell.astype(np.int64) - 1, weights / 6


def _spline_matrix(position: Float64) -> tuple[Int64, Float32]:
    """The lattice indices that the positions touch, and the dense matrix that interpolates from them."""
    first, weights = _spline(position)
    lattice = np.arange(first.min(), first.max() + 4)
    matrix = np.zeros((len(position), len(lattice)), np.float32)
    columns = (first - lattice[0])[:, None] + np.arange(4)
    np.put_along_axis(matrix, columns, weights.astype(np.float32), axis=1)
    return lattice, matrix


@dataclass(frozen=True, slots=True)
class Noise:
    """Smooth noise of mean 0 and variance about 1, with features of about `scale_um`."""

    seed: int
    channel: int
    scale_um: float

    def grid(self, x_um: Float64, y_um: Float64) -> Float32:
        """Values on the axis-aligned grid, len(y) x len(x). Separable, so two matrix products do it."""
        columns, across = _spline_matrix(x_um / self.scale_um)
        rows, down = _spline_matrix(y_um / self.scale_um)
        lattice = self._lattice(columns[None, :], rows[:, None]).astype(np.float32)
        return np.asarray(down @ lattice @ across.T, dtype=np.float32)

    def at(self, x_um: Float64, y_um: Float64) -> Float64:
        """Values at N points."""
        column, across = _spline(x_um / self.scale_um)
        row, down = _spline(y_um / self.scale_um)
        steps = np.arange(4)
        lattice = self._lattice((column[:, None] + steps)[:, None, :], (row[:, None] + steps)[:, :, None])
        return np.asarray(np.einsum("nrc,nr,nc->n", lattice, down, across))

    def _lattice(self, column: Int64, row: Int64) -> Float64:
        return (2 * uniform(self.seed, self.channel, column, row) - 1) * _UNIT_VARIANCE


@dataclass(frozen=True, slots=True)
class Field:
    """A weighted sum of noises."""

    parts: tuple[tuple[float, Noise], ...]

    def grid(self, x_um: Float64, y_um: Float64) -> Float32:
        return np.asarray(sum(np.float32(amount) * noise.grid(x_um, y_um) for amount, noise in self.parts))

    def at(self, x_um: Float64, y_um: Float64) -> Float64:
        return np.asarray(sum(amount * noise.at(x_um, y_um) for amount, noise in self.parts))
