"""A mask per point: a flood from all points of a tile at once, closed, judged and classified by its shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_nuc.models.classical.classes import class_probabilities
from wsi_nuc.models.classical.flood import flood
from wsi_nuc.models.classical.foreground import Scene
from wsi_nuc.models.classical.masks import Layers, crops, plausible, shapes
from wsi_nuc.models.classical.settings import CROP_PX, Parameters
from wsi_nuc.types import Int64, MaskCrops, Prompts

CHUNK = 256  # masks whose crops stay in the cache together


def segment(
    scenes: Sequence[Scene], parameters: Parameters, prompts: Prompts, wanted: Sequence[int]
) -> list[MaskCrops]:
    """Of a batch, one scene per tile."""
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
    # Reading order decides ties, whatever order the prompts are given in.
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
