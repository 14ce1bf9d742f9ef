"""Randomness that is a pure function of (seed, place), so that any tile can be drawn alone.

Fine detail is periodic: it is computed once per slide and then only sliced, so that it costs nothing per tile.
Coarser detail is a `Field`: smooth noise on lattices, computed for the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Float32, Float64, Int64

PERIOD_PX = 512
# Brings a cubic B-spline of uniform lattice values to unit variance (on average over the place).
_UNIT_VARIANCE = 3.62


def periodic(seed: int, channel: int, sigma_px: float) -> Float32:
    """PERIOD x PERIOD white noise of unit variance, blurred on the torus."""
    noise = np.random.default_rng([seed, channel]).standard_normal((PERIOD_PX, PERIOD_PX), np.float32)
    if sigma_px < 0.2:
        return noise
    border = int(4 * sigma_px) + 2
    wrapped = np.pad(noise, border, mode="wrap")
    smooth = cv2.GaussianBlur(wrapped, (0, 0), sigma_px)[border:-border, border:-border]
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


class Grain:
    """A periodic texture over the whole slide."""

    def __init__(self, seed: int, channel: int, sigma_px: float, side_px: int) -> None:
        tile = periodic(seed, channel, sigma_px)
        repeats = side_px // PERIOD_PX + 2
        self._tiled = np.tile(tile, (repeats, repeats))

    def window(self, x_l0: int, y_l0: int, side_px: int) -> Float32:
        x, y = x_l0 % PERIOD_PX, y_l0 % PERIOD_PX
        return self._tiled[y : y + side_px, x : x + side_px]


class Fibres:
    """Streaks along a direction field: a periodic texture that is stretched along the fibres."""

    def __init__(self, seed: int, channel: int) -> None:
        self._texture = periodic(seed, channel, 2.0)

    def draw(self, across_um: Float32, along_um: Float32, width_um: float, length_um: float) -> Float32:
        """Values at the fibre coordinates. A streak is about `width_um` wide and `length_um` long."""
        u, v = (
            self._wrapped(coordinate * np.float32(4 / size))
            for coordinate, size in ((across_um, width_um), (along_um, length_um))
        )
        return np.asarray(cv2.remap(self._texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))

    @staticmethod
    def _wrapped(coordinate: Float32) -> Float32:
        # OpenCV keeps coordinates in 16 bits, and whole periods do not change the texture.
        return coordinate - np.float32(np.floor(coordinate.min() / PERIOD_PX) * PERIOD_PX)


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
    """0 below `low`, 1 above `high`, smooth in between. Keeps the dtype."""
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
        """len(y) x len(x): values on the axis-aligned grid. They are separable, so two matrix products suffice."""
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
    """Weights and noises."""

    def grid(self, x_um: Float64, y_um: Float64) -> Float32:
        return np.asarray(sum(np.float32(amount) * noise.grid(x_um, y_um) for amount, noise in self.parts))

    def at(self, x_um: Float64, y_um: Float64) -> Float64:
        return np.asarray(sum(amount * noise.at(x_um, y_um) for amount, noise in self.parts))
