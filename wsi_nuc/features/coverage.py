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
    """The pixels that N nuclei own, P in all, sorted by their owner."""

    pixel: Int64
    """P: indices into the flat image."""
    owner: Int64
    """P: the nucleus that owns the pixel."""
    count: Int64
    """N: how many pixels each nucleus owns."""

    @classmethod
    def of(cls, pixel: Int64, owner: Int64, nuclei: int) -> Groups:
        return cls(pixel, owner, np.bincount(owner, minlength=nuclei))

    @property
    def starts(self) -> Int64:
        return offsets_of(self.count)[:-1]

    def sum(self, values: npt.NDArray[Any]) -> Float64:
        """N: the P values of each nucleus added up; 0 where it owns none. Whole numbers add up exactly."""
        out = np.zeros(len(self.count))
        owners = np.flatnonzero(self.count)
        if len(owners):
            out[owners] = np.add.reduceat(values, self.starts[owners], dtype=np.float64)
        return out


@dataclass(frozen=True, slots=True)
class Coverage:
    """What N nuclei cover in an image that holds other nuclei as well."""

    label: npt.NDArray[Any]
    """H x W: the number of the nucleus there, 0 for none; of several nuclei the highest number."""
    number: npt.NDArray[Any]
    """N: the number of each nucleus in `label`."""
    inside: Groups
    """The pixels inside each nucleus. Only imported cells may overlap; what they share belongs to both."""
    ring: Groups
    """The pixels of the ring around each nucleus."""


def cover(rings: Rings, ids: Int64, nuclei: int, shape: tuple[int, int], ring_px: int) -> Coverage:
    """The first `nuclei` of the `rings`, which are in pixels of an image of `shape`. The other rings take up room.

    Numbers ascend with the `ids`, so that which of two nuclei gets a pixel does not depend on what else is there.
    """
    height, width = shape
    pixel, owner = rings.covered(Box(0, 0, width, height))
    # OpenCV does not dilate wider integers. Floats hold these numbers exactly as well; tissue never needs them.
    number = np.empty(len(ids), np.uint16 if len(ids) < _MOST_LABELS else np.float32)
    number[np.argsort(ids)] = np.arange(1, len(ids) + 1)
    label = np.zeros(height * width, number.dtype)
    np.maximum.at(label, pixel, number[owner])
    asked = np.searchsorted(owner, nuclei)
    inside = Groups.of(pixel[:asked], owner[:asked], nuclei)
    image = label.reshape(shape)
    return Coverage(image, number[:nuclei], inside, _ring(image, number, nuclei, ring_px))


def _ring(label: npt.NDArray[Any], number: npt.NDArray[Any], nuclei: int, ring_px: int) -> Groups:
    """Free pixels go to the nucleus that reaches them first.

    Nuclei grow by one pixel at a time, in eight and in four directions in turn, which gives octagons: the nearest
    to circles that whole steps allow.
    """
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
