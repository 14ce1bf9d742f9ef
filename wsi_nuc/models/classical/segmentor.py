"""A mask and a class for each point of the classical model.

A flood from all points of a tile at once, darkest pixels first and for a bounded distance, decides which pixel
belongs to which point. Its labels are cut into crops around the points, closed, measured and judged by their
shape.

The class follows from the shape of the mask: a rule of thumb, not a diagnosis. It is a softmax over numbers that a
reader can picture: lymphocytes are small, round and stand out from their surroundings; fibroblasts are elongated;
epithelial nuclei are large. The weights were fitted to 21 labelled colon images and say little elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import SlideError
from wsi_nuc.models.classical.foreground import SOFT, Scene
from wsi_nuc.models.classical.settings import CROP_PX, MPP, Parameters
from wsi_nuc.types import Bool, Float32, Float64, Int64, MaskCrops, Prompts, UInt8

Labels = npt.NDArray[np.uint16]


def flood(scene: Scene, xy: Int64, parameters: Parameters) -> Labels:
    """H x W: i + 1 where point i holds the pixel, else 0.

    A watershed would follow a chain of touching nuclei across the tile. Here a label grows by at most
    levels x steps pixels, so that what lies further away cannot matter. Where two labels arrive at once, the later
    point in reading order wins, which depends only on where the points lie relative to each other.
    """
    if len(xy) >= np.iinfo(np.uint16).max:
        raise SlideError(
            f"{len(xy)} points in one tile", "more than can be told apart", "check the image and its mpp"
        )
    labels = np.zeros(scene.inside.shape, np.uint16)
    labels[xy[:, 1], xy[:, 0]] = np.arange(1, len(xy) + 1)
    square, cross = np.ones((3, 3), np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for level in np.linspace(0.95 * SOFT, -1, parameters.levels).astype(np.int64):
        allowed = scene.inside & (scene.order > level)
        for step in range(parameters.steps):
            reached = cv2.dilate(labels, cross if step % 2 else square)
            np.copyto(labels, reached, where=allowed & (labels == 0))
    return labels


EXCESS_UNIT = 0.005


@dataclass(frozen=True, slots=True)
class Shapes:
    """What N masks look like, in numbers."""

    area_px: Float64
    """N pixel counts."""
    elongation: Float64
    """N ratios of the long axis to the short one."""
    excess: Float64
    """N means of the excess over the local threshold."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Images of one tile, with a border of zeros half a crop wide."""

    labels: Labels
    """The labels of `flood`."""
    excess: Float32
    """The scene's excess in units of `EXCESS_UNIT`: whole numbers whose sum over the largest nucleus stays below
    2**24, so that float32 adds them exactly in any order."""

    @classmethod
    def of(cls, labels: Labels, scene: Scene) -> Layers:
        half = CROP_PX // 2
        excess = np.rint(np.clip(scene.excess, -20, 20) / EXCESS_UNIT).astype(np.float32)
        return cls(np.pad(labels, half), np.pad(excess, half))


def crops(layers: Layers, xy: Int64, label: Int64, closing_px: int) -> UInt8:
    """N x CROP_PX x CROP_PX masks (0/1), centred on the points and smoothed. `label`: the label of each point."""
    windows = _windows(layers.labels, xy)
    own = windows == label[:, None, None]
    # Pale centres and notches are filled, but never with pixels of another nucleus.
    free = own | (windows == 0)
    closed = _morphed(own.astype(np.uint8), cv2.MORPH_CLOSE, cv2.MORPH_ELLIPSE, closing_px)
    return _morphed(closed * free, cv2.MORPH_OPEN, cv2.MORPH_CROSS, 1)


def _windows(padded: npt.NDArray[Any], xy: Int64) -> npt.NDArray[Any]:
    views = np.lib.stride_tricks.sliding_window_view(padded, (CROP_PX, CROP_PX))
    return np.asarray(views[xy[:, 1], xy[:, 0]])


def _morphed(mask: UInt8, operation: int, shape: int, radius: int) -> UInt8:
    """All crops lie in one tall image; the empty rim of each keeps them apart."""
    kernel = cv2.getStructuringElement(shape, (2 * radius + 1, 2 * radius + 1))
    tall = cv2.morphologyEx(mask.reshape(-1, CROP_PX), operation, kernel)
    return np.asarray(tall, np.uint8).reshape(mask.shape)


def shapes(mask: UInt8, layers: Layers, xy: Int64) -> Shapes:
    flat = mask.reshape(len(mask), -1).astype(np.float32)
    sums = (flat @ _moments()).astype(np.float64)
    area, sx, sy, sxx, syy, sxy = sums.T
    area_px = np.maximum(area, 1)
    # The second moment of a pixel about its own centre is one twelfth.
    xx, yy = sxx / area_px - (sx / area_px) ** 2 + 1 / 12, syy / area_px - (sy / area_px) ** 2 + 1 / 12
    half_gap = np.hypot((xx - yy) / 2, sxy / area_px - sx * sy / area_px**2)
    middle = (xx + yy) / 2
    elongation = np.sqrt((middle + half_gap) / np.maximum(middle - half_gap, 1 / 12))
    excess = _sums(layers.excess, flat, xy) / area_px
    return Shapes(area, elongation, excess * EXCESS_UNIT)


def _moments() -> Float32:
    """CROP_PX**2 x 6: 1, x, y, x2, y2, xy of each pixel."""
    y, x = np.mgrid[:CROP_PX, :CROP_PX].reshape(2, -1)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1).astype(np.float32)


def _sums(padded: Float32, flat: Float32, xy: Int64) -> Float64:
    values = _windows(padded, xy).reshape(flat.shape)
    return np.asarray(np.einsum("np,np->n", values, flat), np.float64)


def plausible(measured: Shapes, least_px: int, most_px: int) -> Bool:
    return np.asarray((measured.area_px >= least_px) & (measured.area_px <= most_px))


def features(measured: Shapes) -> Float64:
    """N x 4, in the order of `settings.FEATURES`, each about -2..2."""
    area_um2 = np.maximum(measured.area_px, 1) * MPP**2
    columns = [
        np.ones(len(area_um2)),
        np.log2(area_um2 / 32),
        np.log2(measured.elongation),
        measured.excess - 0.5,
    ]
    return np.stack(columns, axis=1)


def class_probabilities(measured: Shapes, weights: Float64) -> Float32:
    """N x C, rows sum to 1. Summed column by column, so that a row does not depend on how many rows there are."""
    numbers = features(measured)
    logits = sum(numbers[:, k : k + 1] * weights[None, :, k] for k in range(numbers.shape[1]))
    exponents = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


CHUNK = 256  # masks whose crops stay in the cache together


def segment(
    scenes: Sequence[Scene], parameters: Parameters, prompts: Prompts, wanted: Sequence[int]
) -> list[MaskCrops]:
    """The masks of the `wanted` prompts of a batch, which has one scene per tile."""
    chosen, masks = np.asarray(wanted, np.int64), []
    for row, scene in enumerate(scenes):
        asked = chosen[prompts.row[chosen] == row]
        if len(asked):
            masks += _of_tile(scene, parameters, prompts, np.flatnonzero(prompts.row == row), asked)
    return masks


def _of_tile(
    scene: Scene, parameters: Parameters, prompts: Prompts, of_tile: Int64, asked: Int64
) -> list[MaskCrops]:
    xy = np.floor(prompts.xy_tile).astype(np.int64)
    # Reading order decides ties, in whatever order the prompts are given.
    of_tile = of_tile[np.lexsort((xy[of_tile, 0], xy[of_tile, 1]))]
    layers = Layers.of(flood(scene, xy[of_tile], parameters), scene)
    label_of = np.zeros(len(prompts), np.int64)
    label_of[of_tile] = np.arange(1, len(of_tile) + 1)
    pieces = [asked[i : i + CHUNK] for i in range(0, len(asked), CHUNK)]
    return [_masks(layers, (xy[piece], label_of[piece]), piece, parameters) for piece in pieces]


def _masks(layers: Layers, points: tuple[Int64, Int64], prompt: Int64, parameters: Parameters) -> MaskCrops:
    """`points`: pixel and label of each prompt."""
    xy, label = points
    mask = crops(layers, xy, label, parameters.closing_px)
    measured = shapes(mask, layers, xy)
    keep = plausible(measured, parameters.least_px, parameters.most_px)
    probabilities = class_probabilities(measured, parameters.class_weights)
    score = np.clip(measured.excess / (measured.excess + 0.5), 0, 1).astype(np.float32)
    unknown = np.full(len(mask), np.nan, np.float32)
    origin = xy - CROP_PX // 2
    return MaskCrops(mask[keep], origin[keep], prompt[keep], score[keep], unknown[keep], probabilities[keep])
