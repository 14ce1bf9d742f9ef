"""From the maps of a tile to its nuclei, after HoVer-Net (Graham et al. 2019). No torch here.

A network says of every pixel whether it belongs to a nucleus, and where in the nucleus it lies, from -1 at the
left (or upper) end to 1 at the other. Within a nucleus these maps rise; where they fall, one nucleus ends and the
next one begins. What is far from such edges is a marker, and a watershed gives the markers the other foreground.

**A named difference.** HoVer-Net stretches the maps and their gradients between the least and the greatest value
of a tile, so one odd nucleus changes all others of its tile. Here the scale is fixed (`HvSettings.gradients`).

**What a nucleus depends on**: the maps within `HvSettings.sight_px` of it, and nothing else. If it lies that far
from the edges of two tiles with the same maps, it is the same in both, pixel by pixel, since

* gradients are computed in whole numbers, which floats add exactly in any order;
* the flood takes a given number of steps, and in each of them a pixel looks only at its neighbours;
* ties are broken by where pixels lie relative to each other (the first one in reading order), never by ids;
* only holes up to a given width are filled.

**Rules.**

1. *At the edge of a tile* nothing is dropped or mended: it may be the edge of an image, and a nucleus that is cut
   there still keeps its neighbours apart. In a run it gets no further. Since the halo is at least as wide as the
   margin and the largest nucleus together (`check_geometry`), either the tile does not answer for its point, or
   it is too large and falls under rule 2. Each tile that answers for a nucleus across a seam sees it whole.
2. *Clumps* may be as wide as they like, also wider than the halo: their markers part them. Foreground that the
   flood does not reach belongs to no nucleus. A nucleus that is wider or higher than `largest_px` is dropped, and
   its pixels are background. Tiles that see only a part of it do not report that part, by rule 1.
3. *The grid of tiles.* A tile is decoded alone, so regions, batches, order and workers change nothing. With
   another grid the network sees other surroundings of a pixel, the cells of a coarse class map begin elsewhere,
   and nuclei that are nearer than `sight_px` to the edge of a tile may get another outline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import comb
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import ModelError
from wsi_nuc.models.instances import Instances, Labels, Runs, extents
from wsi_nuc.rings import offsets_of
from wsi_nuc.types import Bool, Float32, Float64, Int64

Heights = npt.NDArray[np.uint16]
# The maps and the kernels in whole numbers, whose products add up to less than 2**24 with any kernel.
MAP_STEPS, SMOOTH_STEPS, SLOPE_STEPS = 128, 256, 240
LARGEST_VALUE = 2
LEVELS = 1023  # of edges, from none to a certain one
OPENING_PX, BLUR_PX = 5, 3

# A rank of the flood: the level, then steps at that level, then the marker's pixel.
_LEVEL, _STEP, _SOURCE, _DRY = 48, 1 << 40, (1 << 40) - 1, 1 << 62


@dataclass(frozen=True, slots=True)
class HvSettings:
    """How maps become nuclei. Lengths are in pixels of the maps; the defaults are for 0.25 um per pixel."""

    foreground: float = 0.5
    """A pixel belongs to a nucleus if it has at least this probability."""
    gradients: tuple[float, float] = (-0.22, 0.13)
    """The slopes of the maps, per pixel, at which an edge is certain and at which there is certainly none. Within
    a nucleus of w pixels the slope is about 2 / w. Chosen on drawn nuclei; maps of CoNSeP's labels agree."""
    marker: float = 0.4
    """A foreground pixel is part of a marker if its edge, from 0 to 1 between the two gradients, is below this."""
    sobel_px: int = 21
    """Width of the Sobel kernel, odd."""
    hole_px: int = 10
    """Holes in markers that are at most this wide and high are filled, also where they are background."""
    flood_px: int = 24
    """Steps of the flood: no pixel of a nucleus is farther from its marker."""
    least_px: int = 20
    """Area of the smallest nucleus."""
    largest_px: int = 96
    """Nuclei that are wider or higher are dropped. `ModelSpec.largest_nucleus_px` must not be less."""

    def __post_init__(self) -> None:
        limits = {
            "foreground": 0 < self.foreground <= 1,
            "gradients": self.gradients[0] < self.gradients[1],
            "marker": 0 < self.marker <= 1,
            "sobel_px": self.sobel_px % 2 == 1 and 3 <= self.sobel_px <= 31,
            "hole_px": self.hole_px >= 0,
            "flood_px": 1 <= self.flood_px < 255,
            "least_px": self.least_px >= 1,
            "largest_px": self.largest_px >= 1,
        }
        for name, fine in limits.items():
            if not fine:
                raise ModelError(f"hv.{name} = {getattr(self, name)!r}", "out of range", "correct the setting")

    @property
    def sight_px(self) -> int:
        """How far from a nucleus the maps may lie that it depends on."""
        energy = self.sobel_px // 2 + BLUR_PX // 2
        markers = self.hole_px + 2 * (OPENING_PX // 2)
        return energy + markers + 2 * self.flood_px


@dataclass(frozen=True, slots=True)
class HvMaps:
    """What a network says of one tile. All numbers are finite."""

    foreground: Float32
    """H x W probabilities."""
    hv: Float32
    """2 x H x W: where in its nucleus a pixel lies, horizontally and then vertically."""
    class_probs: Float32
    """C x h x w probabilities that add up to 1. Each cell covers a square of ceil(H / h) pixels."""


def decode(tiles: Sequence[HvMaps], settings: HvSettings) -> Instances:
    """The nuclei of a batch, those of each tile in reading order of their first pixels."""
    labels = np.zeros((len(tiles), *tiles[0].foreground.shape), np.int32)
    score, probs = zip(*(_fill(*pair, settings) for pair in zip(labels, tiles, strict=True)), strict=True)
    return Instances(labels, np.concatenate(score), np.concatenate(probs))


def hv_of(labels: Labels) -> Float32:
    """2 x H x W: the maps that a perfect network gives for ids 1..N, 0 at each nucleus's centre of mass."""
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


def _fill(out: Labels, maps: HvMaps, settings: HvSettings) -> tuple[Float32, Float32]:
    """Writes the ids of a tile into `out`; scores and class probabilities."""
    # A rim of background, one pixel wide, stands around all images in here.
    solid = np.zeros((out.shape[0] + 2, out.shape[1] + 2), np.bool_)
    np.greater_equal(maps.foreground, settings.foreground, out=_inner(solid))
    if not solid.any():
        return np.zeros(0, np.float32), np.zeros((0, len(maps.class_probs)), np.float32)
    edges = _edges(maps.hv, settings)
    labels = _markers(solid, edges < settings.marker * LEVELS, settings)
    _flood(labels, solid, _heights(solid, edges), settings.flood_px)
    return _means(maps, out, _kept(_inner(labels), out, settings))


def _inner(padded: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return padded[1:-1, 1:-1]


def _edges(hv: Float32, settings: HvSettings) -> Float32:
    """H x W, 0 to `LEVELS`: how certainly each pixel lies at an edge."""
    smooth, slope, unit = _kernels(settings.sobel_px)
    lowest, highest = settings.gradients
    across = cv2.sepFilter2D(_whole(hv[0]), cv2.CV_32F, slope, smooth)
    edges: Float32 = cv2.min(across, cv2.sepFilter2D(_whole(hv[1]), cv2.CV_32F, smooth, slope))
    edges *= np.float32(-LEVELS / ((highest - lowest) * unit))
    edges += np.float32(LEVELS * highest / (highest - lowest))
    return np.clip(edges, 0, LEVELS, out=edges)


def _whole(plane: Float32) -> npt.NDArray[np.int16]:
    """A map in whole steps."""
    steps: npt.NDArray[np.int16] = cv2.multiply(plane, float(MAP_STEPS), dtype=cv2.CV_16S)
    return np.clip(steps, -LARGEST_VALUE * MAP_STEPS, LARGEST_VALUE * MAP_STEPS, out=steps)


@cache
def _kernels(size: int) -> tuple[Float32, Float32, float]:
    """Smoothing and derivative of the Sobel operator in whole numbers, without the zeros at their ends, and what
    they make of a map that rises by 1 per pixel."""
    smooth = np.array([comb(size - 1, k) for k in range(size)], np.float64)
    slope = np.convolve([comb(size - 2, k) for k in range(size - 1)], [-1.0, 1.0])
    smooth = np.trim_zeros(np.rint(smooth * (SMOOTH_STEPS / smooth.sum())))
    slope = np.trim_zeros(np.rint(slope * (SLOPE_STEPS / np.abs(slope).sum())))
    unit = MAP_STEPS * smooth.sum() * (slope @ np.arange(len(slope)))
    return smooth.astype(np.float32), slope.astype(np.float32), float(unit)


def _markers(solid: Bool, calm: Bool, settings: HvSettings) -> Labels:
    """Ids of the markers, 0 elsewhere. `calm`: H x W, not at an edge."""
    marker = np.zeros(solid.shape, np.uint8)
    np.logical_and(_inner(solid), calm, out=_inner(marker.view(np.bool_)))
    filled = marker.copy()
    cv2.floodFill(filled, None, (0, 0), 1)
    if not filled.all():  # what the flood from outside leaves dry are holes
        holes = _parts(1 - filled)
        small = np.append(False, extents(Runs.of(holes).boxes()) <= settings.hole_px)
        marker |= small[holes].view(np.uint8)
    # What this opens has 17 pixels or more, so markers of less than 10, which HoVer-Net drops, do not occur.
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (OPENING_PX, OPENING_PX))
    return _parts(cv2.morphologyEx(marker, cv2.MORPH_OPEN, ellipse))


def _parts(image: npt.NDArray[np.uint8]) -> Labels:
    """Ids of the 4-connected parts. OpenCV takes five times as long if it is to measure them as well."""
    labels: Labels = cv2.connectedComponents(image, connectivity=4)[1]
    return labels


def _heights(solid: Bool, edges: Float32) -> Heights:
    """The ground that the flood rises over: low in the middle of nuclei, `LEVELS` outside."""
    height = np.full(solid.shape, LEVELS, np.uint16)
    np.copyto(_inner(height), np.rint(edges).astype(np.uint16), where=_inner(solid))
    return np.asarray(cv2.GaussianBlur(height, (BLUR_PX, BLUR_PX), 0))


def _flood(labels: Labels, solid: Bool, height: Heights, steps: int) -> None:
    """The watershed, in place: each pixel of `solid` that the flood reaches in `steps` steps gets a marker's id.

    In each step, all pixels at once, a pixel follows that one of its four neighbours which the flood reaches
    first: at the lowest level, then after the fewest steps at that level, then from the first marker pixel in
    reading order. The three make up one number, its rank. It is above that of the neighbour which it comes from,
    so of the neighbours of a pixel whose rank has changed only those above it are looked at again.
    """
    flat, level, stride = labels.ravel(), height.ravel(), solid.shape[1]
    free, marked = solid & (labels == 0), labels > 0
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    sources = np.flatnonzero(marked & cv2.dilate(free.view(np.uint8), cross).view(np.bool_))
    active = np.flatnonzero(free & cv2.dilate(marked.view(np.uint8), cross).view(np.bool_))
    rank = np.full(flat.size, _DRY, np.int64)
    rank[sources] = level[sources].astype(np.int64) << _LEVEL | sources
    seen = np.where(free.ravel(), np.uint8(0), np.uint8(255))  # the last step that looked at a pixel
    wet = [active[:0]]
    for step in range(1, steps + 1):
        first = rank[active - stride]
        for way in (-1, 1, stride):
            np.minimum(first, rank[active + way], out=first)
        new = np.maximum(first, first & _SOURCE | level[active].astype(np.int64) << _LEVEL) + _STEP
        old = rank[active]
        rows = np.flatnonzero(new != old)
        changed, new, old = active[rows], new[rows], old[rows]
        rank[changed] = new
        wet.append(changed[old == _DRY])
        lower, near = np.minimum(new, old), []
        for way in (-stride, -1, 1, stride):
            beside = changed + way
            near.append(beside[(seen[beside] < step) & (rank[beside] > lower)])
            seen[near[-1]] = step
        active = np.concatenate(near)
    reached = np.concatenate(wet)
    flat[reached] = flat[rank[reached] & _SOURCE]


def _kept(labels: Labels, out: Labels, settings: HvSettings) -> Runs:
    """Without nuclei that are too small or too large, and numbered in reading order: into `out`, and as runs."""
    runs = Runs.of(labels)
    keep = (runs.areas() >= settings.least_px) & (extents(runs.boxes()) <= settings.largest_px)
    runs = runs.select(keep[runs.ids - 1])
    old, first = np.unique(runs.ids, return_index=True)
    number = np.zeros(len(keep) + 1, np.int32)
    number[old[np.argsort(first)]] = np.arange(1, len(old) + 1)
    np.take(number, labels, out=out, mode="clip")
    return replace(runs, ids=number[runs.ids].astype(np.int64))


def _means(maps: HvMaps, labels: Labels, runs: Runs) -> tuple[Float32, Float32]:
    """Of each nucleus the mean probability of foreground, and that of each class."""
    classes, rows, columns = maps.class_probs.shape
    area = runs.areas()
    if not len(area):
        return np.zeros(0, np.float32), np.zeros((0, classes), np.float32)
    starts = offsets_of(runs.length)[:-1]

    def mean(plane: Float32, place: Int64) -> Float64:
        sums = np.add.reduceat(plane.ravel()[place], starts, dtype=np.float64)
        return np.asarray(np.bincount(runs.ids, sums)[1:] / area)

    pixel, cell_px = np.flatnonzero(labels > 0), -(-labels.shape[0] // rows)
    y, x = np.divmod(pixel, labels.shape[1])
    cell = pixel if cell_px == 1 else y // cell_px * columns + x // cell_px
    probs = np.stack([mean(plane, cell) for plane in maps.class_probs], axis=1)
    probs /= probs.sum(axis=1, keepdims=True)
    return mean(maps.foreground, pixel).astype(np.float32), probs.astype(np.float32)
