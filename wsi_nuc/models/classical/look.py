"""What the classical model sees in one batch: the foreground of every tile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2

from wsi_nuc.models.base import ModelSpec, NucleiModel, PromptedLook, Ready, no_embedding
from wsi_nuc.models.classical.foreground import Scene, scene_of
from wsi_nuc.models.classical.prompter import propose
from wsi_nuc.models.classical.segmentor import segment
from wsi_nuc.models.classical.settings import Parameters
from wsi_nuc.models.finite import finite
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts, TileBatch


class ClassicalLook(PromptedLook):
    def __init__(self, parameters: Parameters, spec: ModelSpec, scenes: Sequence[Scene]) -> None:
        self._parameters, self._spec, self._scenes = parameters, spec, scenes

    def _propose(self) -> Prompts:
        return propose(self._scenes, self._parameters, len(self._spec.classes))

    def masks(self, wanted: Sequence[int]) -> Ready[Sequence[MaskCrops]]:
        return Ready(segment(self._scenes, self._parameters, self._prompts, wanted))

    def embed(self, xy_tile: Float32, row: Int64) -> Ready[Float32]:
        raise no_embedding(self._spec.name)


def build(parameters: Parameters, spec: ModelSpec) -> NucleiModel:
    # With threads OpenCV may split an image differently from run to run.
    cv2.setNumThreads(1)
    return NucleiModel(spec, partial(_look, parameters, spec))


def _look(parameters: Parameters, spec: ModelSpec, batch: TileBatch) -> ClassicalLook:
    return ClassicalLook(parameters, spec, [finite(scene_of(rgb, parameters)) for rgb in batch.rgb])
