"""Beer-Lambert colour: densities of haematoxylin and eosin to RGB, with stains that vary by slide and by place."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_nuc.synth.noise import uniform
from wsi_nuc.types import Float32, Float64, UInt8

# Light of the empty glass, RGB. Constant, so that blank tiles are equal bytes.
GLASS = np.array([243, 242, 244], np.uint8)
_INKS = np.array([[0.10, 0.22, 0.62], [0.06, 0.42, 0.24], [0.12, 0.12, 0.14]])


class Stain:
    """The two stain vectors (optical density per unit, RGB) and the ink of one slide."""

    def __init__(self, seed: int) -> None:
        lots = 2 * uniform(seed, 80, np.arange(12)) - 1
        self.haematoxylin = self._vector(np.array([0.66, 0.69, 0.30]) + lots[0:3] * np.array([0.07, 0.04, 0.07]))
        self.eosin = self._vector(np.array([0.09, 0.90, 0.36]) + lots[3:6] * np.array([0.06, 0.02, 0.14]))
        self.haematoxylin *= 1 + 0.15 * lots[6]
        self.eosin *= 1 + 0.2 * lots[7]
        self.ink = -np.log(_INKS[int((lots[8] + 1) / 2 * len(_INKS))])

    @staticmethod
    def _vector(raw: Float64) -> Float64:
        return np.asarray(raw / np.linalg.norm(raw))

    def rgb(self, haematoxylin: Float32, eosin: Float32, ink: Float32 | None, noise: Float32) -> UInt8:
        """Light through the densities; `noise` is an optical density that all channels share."""
        channels = []
        for c in range(3):
            density = haematoxylin * np.float32(-self.haematoxylin[c])
            density -= eosin * np.float32(self.eosin[c])
            density -= noise
            if ink is not None:
                density -= ink * np.float32(self.ink[c])
            channels.append(cv2.convertScaleAbs(cv2.exp(density), alpha=float(GLASS[c])))
        return np.asarray(cv2.merge(channels))
