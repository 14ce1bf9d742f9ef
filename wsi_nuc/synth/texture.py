"""Periodic grain: computed once a slide, then only sliced, so fine detail costs nothing a tile."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_nuc.types import Float32

PERIOD_PX = 512


def periodic(seed: int, channel: int, sigma_px: float) -> Float32:
    """PERIOD x PERIOD white noise, blurred on the torus, unit variance."""
    noise = np.random.default_rng([seed, channel]).standard_normal((PERIOD_PX, PERIOD_PX), np.float32)
    if sigma_px < 0.2:
        return noise
    border = int(4 * sigma_px) + 2
    wrapped = np.pad(noise, border, mode="wrap")
    smooth = cv2.GaussianBlur(wrapped, (0, 0), sigma_px)[border:-border, border:-border]
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


class Grain:
    """A periodic texture laid over the whole slide."""

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
        """Values at the fibre coordinates; a streak is about `width_um` wide and `length_um` long."""
        u, v = (
            self._wrapped(c * np.float32(4 / size)) for c, size in ((across_um, width_um), (along_um, length_um))
        )
        return np.asarray(cv2.remap(self._texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))

    @staticmethod
    def _wrapped(coordinate: Float32) -> Float32:
        # OpenCV keeps coordinates in 16 bits; whole periods don't change the texture.
        return coordinate - np.float32(np.floor(coordinate.min() / PERIOD_PX) * PERIOD_PX)
