"""A mask and a class per point. The class is a rule of thumb, not a diagnosis.

It is a softmax over numbers that a reader can picture: lymphocytes are small, round and stand out from their
surroundings; fibroblasts are elongated; epithelial nuclei are large. The weights were fitted to 21 labelled colon
images and say little elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_nuc.models.classical.foreground import Scene
from wsi_nuc.models.classical.masks import Layers, Shapes, crops, flood, shapes
from wsi_nuc.models.classical.settings import CROP_PX, MPP, Parameters
from wsi_nuc.types import Bool, Float32, Float64, Int64, MaskCrops, Prompts

CHUNK = 256  # masks whose crops stay in the cache together


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
