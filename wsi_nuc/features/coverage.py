"""Which pixels belong to which nucleus, and which to the ring around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.rings import Rings, offsets_of
from wsi_nuc.types import Box, Float64, Int64

RING_UM = 2.0
_MOST_LABELS = 2**16 - 1
_EIGHT, _FOUR = (cv2.getStructuringElement(shape, (3, 3)) for shape in (cv2.MORPH_RECT, cv2.MORPH_CROSS))


@dataclass(frozen=True, slots=True)
class Groups:
    """Places in an image, sorted by the nucleus that owns them: `pixel` (P), indices into the flat image, and
    `owner` (P); `count` (N) of each nucleus."""

    pixel: Int64
    owner: Int64
    count: Int64

    @classmethod
    def of(cls, pixel: Int64, owner: Int64, nuclei: int) -> Groups:
        return cls(pixel, owner, np.bincount(owner, minlength=nuclei))

    @property
    def starts(self) -> Int64:
        return offsets_of(self.count)[:-1]

    def sum(self, values: npt.NDArray[Any]) -> Float64:
        """N: the P values of each nucleus added up; 0 where it owns none. Whole numbers add up exactly."""
        out = np.zeros(len(self.count))
        some = np.flatnonzero(self.count)
        if len(some):
            out[some] = np.add.reduceat(values, self.starts[some], dtype=np.float64)
        return out


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the first N of some rings cover. `label`: H x W, the `number` (N) of the ring there or 0 for none; of
    several rings the one with the highest number."""

    label: npt.NDArray[Any]
    number: npt.NDArray[Any]
    inside: Groups
    ring: Groups


def cover(rings: Rings, ids: Int64, nuclei: int, shape: tuple[int, int], ring_px: int) -> Coverage:
    """`rings`: in pixels of an image of `shape`; the first `nuclei` are asked for, the rest are in the way.

    Numbers go up with the `ids`: who gets a pixel that two could have does not depend on what else is there.
    """
    height, width = shape
    pixel, owner = rings.covered(Box(0, 0, width, height))
    # OpenCV dilates no wider integers; these are exact, too, and never needed in tissue.
    number = np.empty(len(ids), np.uint16 if len(ids) < _MOST_LABELS else np.float32)
    number[np.argsort(ids)] = np.arange(1, len(ids) + 1)
    label = np.zeros(height * width, number.dtype)
    np.maximum.at(label, pixel, number[owner])
    asked = np.searchsorted(owner, nuclei)
    inside = Groups.of(pixel[:asked], owner[:asked], nuclei)
    image = label.reshape(shape)
    return Coverage(image, number[:nuclei], inside, _ring(image, number, nuclei, ring_px))


def _ring(label: npt.NDArray[Any], number: npt.NDArray[Any], nuclei: int, ring_px: int) -> Groups:
    """Free pixels go to the nucleus that reaches them first, by steps of one pixel in eight and in four directions
    in turn: octagons, as near to circles as whole steps come."""
    grown = label
    for step in range(ring_px):
        reached = cv2.dilate(grown, _FOUR if step % 2 else _EIGHT)
        cv2.copyTo(grown, cv2.compare(grown, 0, cv2.CMP_NE), reached)
        grown = reached
    pixel = np.flatnonzero(cv2.compare(grown, label, cv2.CMP_NE).ravel())
    asked = np.full(len(number) + 1, -1, np.int64)
    asked[number[:nuclei].astype(np.int64)] = np.arange(nuclei)
    owner = asked[grown.ravel()[pixel].astype(np.int64)]
    pixel, owner = pixel[owner >= 0], owner[owner >= 0]
    order = (
        np.argsort(owner.astype(np.uint16), kind="stable")
        if nuclei < _MOST_LABELS
        else np.argsort(owner, kind="stable")
    )
    return Groups.of(pixel[order], owner[order], nuclei)
