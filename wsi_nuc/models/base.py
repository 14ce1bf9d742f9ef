"""What the pipeline asks of a model: a prompter proposes a point per nucleus, a segmentor turns points into masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wsi_nuc.types import MaskCrops, Prompts, TileBatch


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What planning and publishing need to know of a model; no weights.

    `mpp`: microns per pixel it works at. `core_px`: edge of a tile's core. `halo_px`: context around it.
    `largest_nucleus_px`: no mask is larger than this in x or y. `margin_px`: how far beyond its core a tile
    still proposes candidates. `batch`: tiles a call. All in pixels of `mpp`.
    `weights_sha256` identifies the weights (of the file, or of the built-in constants).
    """

    name: str
    classes: tuple[str, ...]
    mpp: float
    core_px: int
    halo_px: int
    largest_nucleus_px: int
    margin_px: int
    batch: int
    weights_sha256: str


class Prompter(Protocol):
    def propose(self, batch: TileBatch) -> Prompts:
        """Points of all nuclei in the whole read boxes of the batch."""
        ...


class Segmentor(Protocol):
    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        """Masks of the `wanted` prompts (indices into `prompts`); the others serve as neighbours only."""
        ...


@dataclass(frozen=True, slots=True)
class NucleiModel:
    spec: ModelSpec
    prompter: Prompter
    segmentor: Segmentor
