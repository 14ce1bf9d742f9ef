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
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import ModelError
from wsi_nuc.models.instances import Instances
from wsi_nuc.rings import offsets_of, ranges
from wsi_nuc.types import Bool, Float32, Int64

Labels = npt.NDArray[np.int32]
HV_STEPS = 128  # per unit of the maps, which are cut off at -2 and 2
KERNEL_STEPS = 512  # of the derivative; 256 of the smoothing. All products then add up to less than 2**24.
SMOOTHING_STEPS = 256
LEVELS = 1023  # of the energy
OPENING_PX = 5
# A rank: level, steps at that level, source.
_LEVEL, _STEP, _SOURCE, _DRY = 48, 1 << 40, (1 << 40) - 1, 1 << 62


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
    # A rim of background, one pixel wide, stands around all images in here.
    solid = np.zeros(np.add(maps.foreground.shape, 2), np.bool_)
    np.greater_equal(maps.foreground, settings.foreground, out=_inner(solid))
    if solid.any():
        edge = _edges(maps.hv, settings)
        labels = _markers(solid, edge < settings.marker * LEVELS, settings)
        _flood(labels, solid, _heights(solid, edge), settings.flood_px)
    else:
        labels = np.zeros(solid.shape, np.int32)
    runs = _kept(labels, _Runs.of(labels), settings)
    return _inner(labels).copy(), *_means(maps, runs)


def _inner(padded: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return padded[1:-1, 1:-1]


def _edges(hv: Float32, settings: HvSettings) -> Float32:
    """H x W, 0 to `LEVELS`: how much of an edge between nuclei each pixel is."""
    smooth, slope = _kernels(settings.sobel_px)
    lowest, highest = settings.gradients
    steps = hv * np.float32(HV_STEPS)
    np.rint(steps, out=steps)
    np.clip(steps, -2 * HV_STEPS, 2 * HV_STEPS, out=steps)
    across = cv2.sepFilter2D(steps[0], cv2.CV_32F, slope, smooth)
    edge = cv2.min(across, cv2.sepFilter2D(steps[1], cv2.CV_32F, smooth, slope))
    per_level = (highest - lowest) / LEVELS
    edge *= np.float32(-1 / (HV_STEPS * KERNEL_STEPS * SMOOTHING_STEPS * per_level))
    edge += np.float32(highest / per_level)
    return np.clip(edge, 0, LEVELS, out=edge)


@cache
def _kernels(size: int) -> tuple[Float32, Float32]:
    """Smoothing and derivative of the Sobel operator in whole numbers, without the zeros at their ends."""
    smooth = np.array([comb(size - 1, k) for k in range(size)]) / 2 ** (size - 1)
    slope = np.convolve([comb(size - 2, k) for k in range(size - 1)], [-1, 1]) / 2 ** (size - 2)
    whole = np.rint(smooth * SMOOTHING_STEPS), np.rint(slope * KERNEL_STEPS)
    return tuple(np.trim_zeros(kernel).astype(np.float32) for kernel in whole)


def _markers(solid: Bool, calm: Bool, settings: HvSettings) -> Labels:
    """Ids of the markers, 0 elsewhere."""
    marker = np.zeros(solid.shape, np.uint8)
    np.logical_and(_inner(solid), calm, out=_inner(marker.view(np.bool_)))
    outside = marker.copy()
    cv2.floodFill(outside, None, (0, 0), 1)
    if not outside.all():
        _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - outside, connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] <= settings.hole_px
        marker |= (small & (np.arange(len(small)) > 0))[holes].view(np.uint8)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (OPENING_PX, OPENING_PX))
    marker = cv2.morphologyEx(marker, cv2.MORPH_OPEN, ellipse)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marker, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < settings.least_marker_px
    if small.any():
        labels = np.where(small, 0, np.arange(len(small), dtype=np.int32))[labels]
    return labels


def _heights(solid: Bool, edge: Float32) -> npt.NDArray[np.uint16]:
    """What the flood rises through: low in the middle of nuclei, `LEVELS` outside."""
    height = np.full(solid.shape, LEVELS, np.uint16)
    np.copyto(_inner(height), np.rint(edge).astype(np.uint16), where=_inner(solid))
    return np.asarray(cv2.GaussianBlur(height, (3, 3), 0))


def _flood(labels: Labels, solid: Bool, height: npt.NDArray[np.uint16], steps: int) -> None:
    """The watershed, in place: each pixel of `solid` that `steps` steps reach gets the id of a marker.

    In every step, all pixels at once, a pixel follows that one of its four neighbours which the flood reaches
    first: at the lowest level, then with the fewest steps at that level, then from the first marker pixel in
    reading order. The three make up one number, its rank. Only neighbours of what has changed are looked at again.
    """
    flat, free = labels.ravel(), solid.ravel() & (labels.ravel() == 0)
    around = np.array([-solid.shape[1], -1, 1, solid.shape[1]])[:, None]
    rank = np.full(flat.size, _DRY, np.int64)
    marked = np.flatnonzero(flat)
    rank[marked] = height.ravel()[marked].astype(np.int64) << _LEVEL | marked
    active = np.flatnonzero(free)
    seen = np.zeros(flat.size, np.int32)
    wet = active
    for _ in range(steps):
        first = rank[active + around].min(axis=0)
        floor = height.ravel()[active].astype(np.int64) << _LEVEL
        new = np.maximum(first, floor | (first & _SOURCE)) + _STEP
        new[first == _DRY] = _DRY
        changed = new != rank[active]
        rank[active] = new
        near = (active[changed] + around).ravel()
        near = near[free[near]]
        seen[near] = np.arange(len(near))
        active = near[seen[near] == np.arange(len(near))]
        if not len(active):
            break
    wet = wet[rank[wet] != _DRY]
    flat[wet] = flat[rank[wet] & _SOURCE]


@dataclass(frozen=True, slots=True)
class _Runs:
    """The nuclei of a padded label map as runs of pixels along rows, in reading order."""

    ids: Int64
    y: Int64
    x: Int64
    """In the tile, without the rim."""
    length: Int64

    @classmethod
    def of(cls, labels: Labels) -> _Runs:
        flat = labels.ravel()
        # The rim parts the rows.
        border = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        ids, length = flat[border[:-1]], np.diff(border)
        inside = ids > 0
        y, x = np.divmod(border[:-1][inside], labels.shape[1])
        return cls(ids[inside], y - 1, x - 1, length[inside])


def _kept(labels: Labels, runs: _Runs, settings: HvSettings) -> _Runs:
    """Drops what is too small or too large, in place, and numbers the others in reading order."""
    if not len(runs.ids):
        return runs
    count = int(runs.ids.max()) + 1
    area = np.bincount(runs.ids, runs.length, minlength=count)
    low = np.full((2, count), _DRY)
    high = np.zeros((2, count), np.int64)
    for axis, first, last in ((0, runs.x, runs.x + runs.length), (1, runs.y, runs.y + 1)):
        np.minimum.at(low[axis], runs.ids, first)
        np.maximum.at(high[axis], runs.ids, last)
    keep = (area >= settings.least_px) & ((high - low).max(axis=0) <= settings.largest_px)
    seen, order = np.unique(runs.ids[keep[runs.ids]], return_index=True)
    number = np.zeros(count, np.int32)
    number[seen[np.argsort(order)]] = np.arange(1, len(seen) + 1)
    np.take(number, labels, out=labels, mode="clip")
    ids = number[runs.ids]
    rows = np.flatnonzero(ids)
    return _Runs(ids[rows], runs.y[rows], runs.x[rows], runs.length[rows])


def _means(maps: HvMaps, runs: _Runs) -> tuple[Float32, Float32]:
    """Of each nucleus the mean probability of foreground, and of each class."""
    classes, rows, columns = maps.class_probs.shape
    if not len(runs.ids):
        return np.zeros(0, np.float32), np.zeros((0, classes), np.float32)
    height, width = maps.foreground.shape
    cell_px = -(-height // rows)
    x = ranges(runs.x, runs.length)
    starts = offsets_of(runs.length)[:-1]

    def mean(plane, row, column, columns):
        values = plane.ravel()[np.repeat(row * columns, runs.length) + column].astype(np.float64)
        return np.bincount(runs.ids, np.add.reduceat(values, starts))[1:] / area

    area = np.bincount(runs.ids, runs.length)[1:]
    score = mean(maps.foreground, runs.y, x, width)
    probs = np.stack([mean(plane, runs.y // cell_px, x // cell_px, columns) for plane in maps.class_probs], 1)
    return score.astype(np.float32), (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
