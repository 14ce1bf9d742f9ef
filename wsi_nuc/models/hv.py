"""From the maps of a tile to its nuclei, as HoVer-Net does it (Graham et al. 2019): the gradients of the horizontal
and vertical maps show the edges between touching nuclei, what is far from an edge is a marker, and a watershed
gives every other foreground pixel to a marker. No torch here.

**Named difference.** HoVer-Net stretches maps and gradients between the least and the greatest value of a tile, so
one odd nucleus changes all others of its tile. Here the scale of gradients is fixed (`HvSettings.gradients`).

**What a nucleus depends on.** Its result is a function of the maps near it, and of nothing else in the tile:

* Everything is computed in whole numbers (the maps in steps of 1/128, the Sobel kernel in steps of 1/512), which
  floats add exactly in any order. So a pixel has the same energy wherever it lies in a tile, on every machine.
* Ties are broken by the place of pixels relative to each other (reading order), never by ids.
* The flood takes `flood_px` steps, and in each of them a pixel looks only at its four neighbours.

So if a marker lies in two tiles with the same maps, at least `reach_px` (of the settings) away from their edges,
then its nucleus is the same in both, pixel by pixel.

**Rules.**

1. *The edge of the tile.* What touches it is kept here: it may be the edge of an image, and it is a neighbour. In
   a run it goes: `check_geometry` makes the halo as wide as the margin and the largest nucleus together, so a mask
   that holds a point the tile answers for, and reaches the edge of the tile, is larger than `largest_px` and falls
   under rule 2. A nucleus across a seam is whole in each tile that answers for it.
2. *Clumps.* Touching foreground of any width is parted by its markers. Foreground that is more than `flood_px`
   steps from each marker belongs to no nucleus. A nucleus that is wider or higher than `largest_px` is dropped, and
   its pixels are background: no tile can tell it from a clump that was not parted.
3. *The grid of tiles.* The result of a tile is a function of its maps alone, so regions, batches, order and
   workers change nothing. Another grid changes what the network sees around a pixel, where the cells of a coarse
   class map begin, and the outlines of markers nearer than `reach_px` to the edge of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import ModelError
from wsi_nuc.models.instances import Instances, boxes_of
from wsi_nuc.types import Bool, Float32, Int64, UInt8

Labels = npt.NDArray[np.int32]
HV_STEPS = 128  # per unit of the maps, which are cut off at -2 and 2
KERNEL_STEPS = 512  # of the derivative; 256 of the smoothing. All products then add up to less than 2**24.
SMOOTHING_STEPS = 256
LEVELS = 1023  # of the energy
OPENING_PX = 5
_STEP = 1 << 32
_LEVEL_BIT = 40
_DRY = np.int64(1 << 62)


@dataclass(frozen=True, slots=True)
class HvSettings:
    """How maps become nuclei. Lengths are in pixels of the maps."""

    foreground: float = 0.5
    """A pixel with at least this probability belongs to a nucleus."""
    gradients: tuple[float, float] = (-0.3, 0.2)
    """Slopes of the maps per pixel that stand for a certain edge and for certainly none. Within a nucleus of w
    pixels the slope is about 2 / w, and across an edge it is negative."""
    marker: float = 0.4
    """A foreground pixel is part of a marker if its edge, 0..1 between the two `gradients`, is below this."""
    sobel_px: int = 21
    """Edge of the Sobel kernel, odd."""
    least_marker_px: int = 10
    """Area of the smallest marker."""
    hole_px: int = 100
    """Holes in markers up to this area are filled."""
    least_px: int = 20
    """Area of the smallest nucleus."""
    largest_px: int = 96
    """Nuclei that are wider or higher than this are dropped: `ModelSpec.largest_nucleus_px`."""
    flood_px: int = 32
    """Steps of the flood, so how far a nucleus may reach beyond its marker."""

    def __post_init__(self) -> None:
        limits = {
            "foreground": 0 < self.foreground < 1,
            "gradients": self.gradients[0] < self.gradients[1],
            "marker": 0 < self.marker <= 1,
            "sobel_px": self.sobel_px % 2 == 1 and 3 <= self.sobel_px <= 31,
            "least_marker_px": self.least_marker_px >= 1,
            "hole_px": self.hole_px >= 0,
            "least_px": self.least_px >= 1,
            "largest_px": self.largest_px >= 1,
            "flood_px": 1 <= self.flood_px < 256,
        }
        for name, fine in limits.items():
            if not fine:
                raise ModelError(f"hv.{name} = {getattr(self, name)!r}", "out of range", "correct the setting")


@dataclass(frozen=True, slots=True)
class HvMaps:
    """What a network says of one tile."""

    foreground: Float32
    """H x W probabilities."""
    hv: Float32
    """2 x H x W: horizontal and vertical place within the nucleus, -1 at its left or upper end, 1 at the other."""
    class_probs: Float32
    """C x h x w, not negative: each cell covers a square of H / h pixels, rounded up."""


def decode(tiles: Sequence[HvMaps], settings: HvSettings) -> Instances:
    """The nuclei of a batch. Each tile is decoded alone."""
    labels, score, probs = zip(*(_of_tile(maps, settings) for maps in tiles), strict=True)
    return Instances(np.stack(labels), np.concatenate(score), np.concatenate(probs))


def hv_of(labels: Labels) -> Float32:
    """2 x H x W: the maps that a perfect network gives for ids 1..N, as HoVer-Net defines them."""
    y, x = np.nonzero(labels)
    ids = labels[y, x]
    count = np.maximum(np.bincount(ids), 1)
    out = np.zeros((2, *labels.shape), np.float32)
    for plane, place in zip(out, (x, y), strict=True):
        offset = place - np.floor(np.bincount(ids, place) / count + 0.5)[ids]
        ends = np.zeros((2, len(count)))
        np.maximum.at(ends[0], ids, -offset)
        np.maximum.at(ends[1], ids, offset)
        plane[y, x] = offset / np.maximum(ends[(offset > 0).astype(np.int64), ids], 1)
    return out


def _of_tile(maps: HvMaps, settings: HvSettings) -> tuple[Labels, Float32, Float32]:
    solid = (maps.foreground >= settings.foreground).view(np.uint8)
    classes, none = len(maps.class_probs), np.zeros(0, np.float32)
    nothing = np.zeros(solid.shape, np.int32), none, np.zeros((0, classes), np.float32)
    if not solid.any():
        return nothing
    edge = _edge(maps.hv, settings)
    markers = _markers(solid, edge < settings.marker * LEVELS, settings)
    labels = _flooded(solid, markers, _energy(solid, edge), settings.flood_px)
    pixel = np.flatnonzero(labels)
    if not len(pixel):
        return nothing
    labels, pixel = _kept(labels, pixel, settings)
    return labels, *_means(maps, labels, pixel)


def _edge(hv: Float32, settings: HvSettings) -> Float32:
    """H x W, 0 to `LEVELS`, not rounded: how much of an edge between nuclei each pixel is."""
    smooth, slope = _kernels(settings.sobel_px)
    lowest, highest = settings.gradients
    steps = np.clip(np.rint(hv * np.float32(HV_STEPS)), -2 * HV_STEPS, 2 * HV_STEPS)
    across = cv2.sepFilter2D(steps[0], cv2.CV_32F, slope, smooth)
    down = cv2.sepFilter2D(steps[1], cv2.CV_32F, smooth, slope)
    unit = HV_STEPS * KERNEL_STEPS * SMOOTHING_STEPS
    edge = cv2.min(across, down)
    edge *= np.float32(-LEVELS / (unit * (highest - lowest)))
    edge += np.float32(LEVELS * highest / (highest - lowest))
    return np.clip(edge, 0, LEVELS, out=edge)


@cache
def _kernels(size: int) -> tuple[Float32, Float32]:
    """Smoothing and derivative of the Sobel operator in whole numbers."""
    smooth = np.array([comb(size - 1, k) for k in range(size)], np.float64)
    slope = np.convolve([comb(size - 2, k) for k in range(size - 1)], [-1.0, 1.0])
    return (
        np.rint(smooth * (SMOOTHING_STEPS / 2 ** (size - 1))).astype(np.float32),
        np.rint(slope * (KERNEL_STEPS / 2 ** (size - 2))).astype(np.float32),
    )


def _energy(solid: UInt8, edge: Float32) -> npt.NDArray[np.uint16]:
    """What the flood rises through, low in the middle of nuclei, in sixteenths of a level."""
    height = np.rint(edge).astype(np.uint16)
    height[solid == 0] = LEVELS
    return cv2.GaussianBlur(height, (3, 3), 0)


def _markers(solid: UInt8, calm: Bool, settings: HvSettings) -> Labels:
    """Ids of the markers, 0 elsewhere."""
    marker = solid & calm.view(np.uint8)
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - marker, connectivity=8)
    filled = stats[:, cv2.CC_STAT_AREA] <= settings.hole_px
    filled[0] = False
    marker |= filled[holes].view(np.uint8)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (OPENING_PX, OPENING_PX))
    marker = cv2.morphologyEx(marker, cv2.MORPH_OPEN, ellipse)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marker, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= settings.least_marker_px
    large[0] = False
    return np.where(large, np.cumsum(large), 0).astype(np.int32)[labels]


def _flooded(solid: UInt8, markers: Labels, energy: npt.NDArray[np.uint16], steps: int) -> Labels:
    """The watershed: every pixel of `solid` that `steps` steps reach has the id of a marker.

    A pixel follows that of its four neighbours which the flood reaches first: at the lowest level, then after the
    fewest steps at that level, then from the first marker pixel in reading order. The three make up one number, of
    which each step takes the least among the neighbours.
    """
    height, width = solid.shape
    # A rim of one pixel, which is never reached, stands around the tile.
    stride = width + 2
    rank = np.full((height + 2, stride), _DRY, np.int64)
    inside = rank[1:-1, 1:-1]
    own = np.arange(rank.size).reshape(rank.shape)[1:-1, 1:-1]
    level = energy.astype(np.int64) << _LEVEL_BIT
    np.copyto(inside, level | own, where=markers > 0)
    free = np.flatnonzero(np.pad((solid > 0) & (markers == 0), 1))
    floor = np.pad(level, 1).ravel()[free]
    rank = rank.ravel()
    for _ in range(steps):
        first = rank[free - stride]
        for neighbour in (-1, 1, stride):
            np.minimum(first, rank[free + neighbour], out=first)
        raised = np.maximum(first, (first & (_STEP - 1)) | floor) + _STEP
        raised[first == _DRY] = _DRY
        if np.array_equal(raised, rank[free]):
            break
        rank[free] = raised
    wet = free[rank[free] != _DRY]
    out = np.pad(markers, 1).ravel()
    out[wet] = out[rank[wet] & (_STEP - 1)]
    return out.reshape(height + 2, stride)[1:-1, 1:-1]


def _kept(labels: Labels, pixel: Int64, settings: HvSettings) -> tuple[Labels, Int64]:
    boxes = boxes_of(labels)
    area = np.bincount(labels.ravel()[pixel], minlength=len(boxes) + 1)
    large = (boxes[:, 2:] - boxes[:, :2]).max(1) <= settings.largest_px
    keep = np.concatenate([[False], (area[1:] >= settings.least_px) & large])
    labels = np.where(keep, np.cumsum(keep), 0).astype(np.int32)[labels]
    return labels, pixel[labels.ravel()[pixel] > 0]


def _means(maps: HvMaps, labels: Labels, pixel: Int64) -> tuple[Float32, Float32]:
    ids = labels.ravel()[pixel]
    area = np.bincount(ids)[1:]
    score = np.bincount(ids, maps.foreground.ravel()[pixel])[1:] / area
    y, x = np.divmod(pixel, labels.shape[1])
    st = -(-labels.shape[0] // maps.class_probs.shape[1])
    cell = (y // st) * maps.class_probs.shape[2] + x // st
    probs = np.stack([np.bincount(ids, plane.ravel()[cell])[1:] for plane in maps.class_probs], 1)
    return score.astype(np.float32), (probs / probs.sum(1, keepdims=True)).astype(np.float32)
