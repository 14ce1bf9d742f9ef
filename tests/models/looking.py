"""The answers of a model on the host, one at a time, as tests ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsi_nuc.models.base import ModelSpec, NucleiModel, PromptedLook, Ready
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts, TileBatch


def propose(model: NucleiModel, batch: TileBatch) -> Prompts:
    return model.look(batch).prompts.get()


def segment(model: NucleiModel, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> list[MaskCrops]:
    """Masks of the given prompts."""
    return list(model.look(batch).prompted(prompts).masks(wanted).get())


def embed(model: NucleiModel, batch: TileBatch, xy_tile: Float32, row: Int64) -> Float32:
    return model.look(batch).embed(xy_tile, row).get()


class _Look(PromptedLook):
    def __init__(self, batch: TileBatch, prompter: Any, segmentor: Any) -> None:
        self._batch, self._prompter, self._segmentor = batch, prompter, segmentor

    def _propose(self) -> Prompts:
        return self._prompter.propose(self._batch)

    def masks(self, wanted: Sequence[int]) -> Ready[Sequence[MaskCrops]]:
        return Ready(self._segmentor.segment(self._batch, self.prompts.get(), wanted))

    def embed(self, xy_tile: Float32, row: Int64) -> Ready[Float32]:
        raise NotImplementedError


def model_of(spec: ModelSpec, prompter: Any, segmentor: Any = None) -> NucleiModel:
    """A model of stand-ins: `prompter.propose(batch)` and `segmentor.segment(batch, prompts, wanted)`. They may be
    the same object."""
    return NucleiModel(spec, lambda batch: _Look(batch, prompter, segmentor or prompter))
