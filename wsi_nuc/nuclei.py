"""Tables of nuclei, one row per nucleus; the type of a table says in which frame its coordinates are.

See `types` for the frames.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from wsi_nuc.rings import Rings
from wsi_nuc.types import Float32, Float64, Int64


@dataclass(frozen=True, slots=True)
class _Nuclei(Rings):
    """One row per nucleus; the type that derives from this says in which frame `xy` and `prompt_xy` are."""

    prompt_xy: Float64
    """N x 2."""
    score: Float32
    prompt_score: Float32
    predicted_iou: Float32
    """NaN where the model predicts none."""
    class_probs: Float32
    """N x C."""
    tile: Int64
    """The global index of the tile that each row comes from."""

    @classmethod
    def empty(cls, classes: int) -> Self:
        scores, points = np.zeros(0, np.float32), np.zeros((0, 2))
        probs = np.zeros((0, classes), np.float32)
        offsets, tile = np.zeros(1, np.int64), np.zeros(0, np.int64)
        return cls(points, offsets, points, scores, scores, scores, probs, tile)

    @classmethod
    def framed(cls, nuclei: _Nuclei) -> Self:
        """The same numbers as nuclei in the frame of this type."""
        return cls(**{field.name: getattr(nuclei, field.name) for field in fields(nuclei)})

    @property
    def class_id(self) -> Int64:
        """N int64: the most probable class, the first one at a tie."""
        if not len(self):
            return np.zeros(0, np.int64)
        best: Int64 = np.argmax(self.class_probs, axis=1).astype(np.int64)
        return best


class TileNuclei(_Nuclei):
    """Nuclei of one batch in tile pixels, each relative to its own `tile`."""

    __slots__ = ()


class GridNuclei(_Nuclei):
    """Nuclei of one image in pixels of the model's resolution, which need not be those of the image's file."""

    __slots__ = ()


class NucleiTable(_Nuclei):
    """Nuclei in level-0 pixels."""

    __slots__ = ()
