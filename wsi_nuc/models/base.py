"""What the pipeline asks of a model: a prompter proposes a point per nucleus, a segmentor makes masks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wsi_nuc.errors import ModelError
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts, TileBatch


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What planning and publishing need to know of a model; no weights.

    `mpp`: microns per pixel it works at. `core_px`: edge of a tile's core. `halo_px`: context around it.
    `largest_nucleus_px`: no mask is larger than this in x or y. `margin_px`: how far beyond its core a tile
    still proposes candidates. `batch`: tiles a call. All in pixels of `mpp`.
    `weights_sha256` identifies the weights (of the file, or of the built-in constants). `uses_torch`: it can
    run on a GPU. `embedding`: how many numbers its embedder describes a nucleus with, 0 without one.
    `nucleus_um`: the sizes (see `doctor.sample`) that it gives on slides whose resolution is known; None where
    nobody measured. `reach_px`: no pixel of a mask is farther than this from its point in x or y (0: only that the
    mask holds its point is known). `domain`: how its training images looked, see `models.domain`; empty: unknown.
    `cpu_tile_s`: roughly how long one CPU core takes for a tile.
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
    uses_torch: bool = False
    embedding: int = 0
    nucleus_um: tuple[float, float] | None = None
    reach_px: int = 0
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    cpu_tile_s: float = 1.0


class Prompter(Protocol):
    def propose(self, batch: TileBatch) -> Prompts:
        """Points of all nuclei in the whole read boxes of the batch."""
        ...


class Segmentor(Protocol):
    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        """Masks of the `wanted` prompts (indices into `prompts`); the others serve as neighbours only."""
        ...


class Embedder(Protocol):
    def embed(self, batch: TileBatch, xy_tile: Float32, row: Int64) -> Float32:
        """N x `spec.embedding`: what the model sees at each point (N x 2); `row`: its tile in the batch."""
        ...


@dataclass(frozen=True, slots=True)
class NucleiModel:
    spec: ModelSpec
    prompter: Prompter
    segmentor: Segmentor
    embedder: Embedder | None = None


def check_geometry(spec: ModelSpec) -> None:
    """Refuse a model whose nuclei can reach beyond the pixels that a tile reads."""
    needed = spec.margin_px + (spec.reach_px or spec.largest_nucleus_px)
    if spec.halo_px < needed:
        raise ModelError(
            f"model {spec.name}",
            f"its halo of {spec.halo_px} px is too narrow: a nucleus of {spec.largest_nucleus_px} px with its "
            f"point {spec.margin_px} px beyond the core would be cut at the edge of the tile",
            f"set halo_px to at least {needed}",
        )
    sizes = (spec.core_px, spec.largest_nucleus_px, spec.batch)
    if min(sizes) < 1 or spec.margin_px < 0 or not 0 < spec.mpp < 100 or not spec.classes:
        cause = f"its geometry makes no sense: {spec}"
        raise ModelError(f"model {spec.name}", cause, "use positive sizes and at least one class")
