"""The classical model behind the protocols of `models/base.py`, built in or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.classical.blobs import blobs
from wsi_nuc.models.classical.classes import class_probabilities
from wsi_nuc.models.classical.flood import flood
from wsi_nuc.models.classical.foreground import Scene, look
from wsi_nuc.models.classical.masks import Layers, crops, plausible, shapes
from wsi_nuc.models.classical.parameters import CROP_PX, Parameters
from wsi_nuc.models.finite import finite
from wsi_nuc.types import Int64, MaskCrops, Prompts, TileBatch, UInt8

CHUNK = 256  # masks whose crops stay in the cache together


@dataclass
class _LastLook:
    """Proposing and segmenting look at the same pixels one after the other; the second look is free."""

    rgb: UInt8 | None = None
    scenes: tuple[Scene, ...] = ()

    def at(self, rgb: UInt8, parameters: Parameters) -> tuple[Scene, ...]:
        if self.rgb is not rgb:
            self.scenes = tuple(finite(look(image, parameters)) for image in rgb)
            self.rgb = rgb
        return self.scenes


@dataclass(frozen=True)
class ClassicalPrompter:
    parameters: Parameters
    classes: int
    last: _LastLook

    def propose(self, batch: TileBatch) -> Prompts:
        found = [blobs(scene, self.parameters) for scene in self.last.at(batch.rgb, self.parameters)]
        rows = [np.full(len(xy), row, np.int64) for row, (xy, _) in enumerate(found)]
        xy_tile = np.concatenate([xy for xy, _ in found]).astype(np.float32) + np.float32(0.5)
        count = len(xy_tile)
        # A point alone says nothing about the class; the mask does.
        even = np.full((count, self.classes), 1 / self.classes, np.float32)
        return Prompts(xy_tile, np.concatenate([score for _, score in found]), even, np.concatenate(rows))


@dataclass(frozen=True)
class ClassicalSegmentor:
    parameters: Parameters
    last: _LastLook

    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        chosen, found = np.asarray(wanted, np.int64), []
        for row, scene in enumerate(self.last.at(batch.rgb, self.parameters)):
            here = np.flatnonzero(prompts.row == row)
            some = chosen[prompts.row[chosen] == row]
            if len(some):
                found += self._one_tile(scene, prompts, here, some)
        return found

    def _one_tile(self, scene: Scene, prompts: Prompts, here: Int64, some: Int64) -> list[MaskCrops]:
        xy = np.floor(prompts.xy_tile).astype(np.int64)
        # Reading order decides ties, whatever order the prompts are given in.
        here = here[np.lexsort((xy[here, 0], xy[here, 1]))]
        layers = Layers.of(flood(scene, xy[here], self.parameters), scene)
        label_of = np.zeros(len(prompts), np.int64)
        label_of[here] = np.arange(1, len(here) + 1)
        closing_px = self.parameters.closing_px
        pieces = [some[i : i + CHUNK] for i in range(0, len(some), CHUNK)]
        return [self._masks(layers, crops(layers, xy[p], label_of[p], closing_px), xy[p], p) for p in pieces]

    def _masks(self, layers: Layers, mask: UInt8, xy: Int64, prompt: Int64) -> MaskCrops:
        found = shapes(mask, layers, xy)
        keep = plausible(found, self.parameters.least_px, self.parameters.most_px)
        probabilities = class_probabilities(found, self.parameters.class_weights)
        score = np.clip(found.excess / (found.excess + 0.5), 0, 1).astype(np.float32)
        unknown = np.full(len(mask), np.nan, np.float32)
        origin = xy - CROP_PX // 2
        return MaskCrops(mask[keep], origin[keep], prompt[keep], score[keep], unknown[keep], probabilities[keep])


def build(parameters: Parameters, spec: ModelSpec) -> NucleiModel:
    # With threads OpenCV may split an image differently from run to run.
    cv2.setNumThreads(1)
    last = _LastLook()
    return NucleiModel(
        spec,
        ClassicalPrompter(parameters, len(spec.classes), last),
        ClassicalSegmentor(parameters, last),
    )
