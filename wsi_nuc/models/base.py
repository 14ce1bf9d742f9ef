"""What the pipeline asks of a model: one look at a batch of tiles, which knows a point, a mask, scores and class
probabilities of every nucleus."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Protocol, Self, TypeVar

from wsi_nuc.errors import ModelError
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts, TileBatch

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What planning and publishing need to know of a model; no weights. Lengths are in pixels of `mpp`."""

    name: str
    classes: tuple[str, ...]
    mpp: float
    """Microns per pixel that it works at."""
    core_px: int
    """Edge of a tile's core."""
    halo_px: int
    """Context around the core, on each side."""
    largest_nucleus_px: int
    """No mask is larger than this in x or y."""
    margin_px: int
    """How far beyond its core a tile still proposes candidates."""
    batch: int
    """Tiles per call."""
    weights_sha256: str
    """Identifies the weights: those of the file, or the built-in constants."""
    uses_torch: bool = False
    """It can run on a GPU."""
    embedding: int = 0
    """How many numbers its embedder describes a nucleus with; 0 without an embedder."""
    nucleus_um: tuple[float, float] | None = None
    """The sizes (`Sample.size_um` of room `quality`) that it gives on slides whose resolution is known; None: not
    measured."""
    reach_px: int = 0
    """No pixel of a mask is farther than this from its point in x or y. 0: nothing is known but that the mask
    holds its point."""
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """How its training images looked, see `models.domain`; empty: unknown."""
    cpu_tile_s: float = 1.0
    """Roughly how many seconds one CPU core takes for a tile."""
    copyable: bool = False
    """A process that has loaded it on the CPU may be copied by `fork`: loading starts no threads where one each is
    allowed."""
    as_published: bool = False
    """Evaluation scores it as the published program scores itself, see `evaluation.painting`."""
    results: int = 1
    """The family's results number, raised exactly when equal weights and pixels give other nuclei. For families of
    this package see `wsi_nuc.results_numbers`."""


class Fetch(Protocol[T_co]):
    """An answer that may still be computed on a device. `get` waits for it and brings it to the host, once."""

    def get(self) -> T_co: ...


@dataclass(frozen=True, slots=True)
class Ready(Generic[T_co]):
    """An answer that is on the host already."""

    value: T_co

    def get(self) -> T_co:
        return self.value


class Later(Generic[T_co]):
    """An answer that lies on a device; `bring` copies it to the host."""

    def __init__(self, bring: Callable[[], T_co]) -> None:
        self._bring: Callable[[], T_co] | None = bring
        self._value: list[T_co] = []

    def get(self) -> T_co:
        if self._bring is not None:
            self._value, self._bring = [self._bring()], None
        return self._value[0]


class Look(Protocol):
    """What a model saw in one batch of tiles: a value that holds all that its answers need.

    The model itself remembers nothing, so any number of looks may be in flight, and their answers may be asked for
    in any order and from any thread. Each property and method starts what it asks for and returns at once where
    the device allows; nothing comes to the host before `get`.
    """

    @property
    def prompts(self) -> Fetch[Prompts]:
        """A representative point of every nucleus in the whole read boxes of the batch, with score and classes.

        A network that proposes points gives those; one that makes instances directly gives a point inside each.
        """
        ...

    def prompted(self, prompts: Prompts) -> Look:
        """The same look with these points in place of its own; ModelError where points do not make the masks."""
        ...

    def masks(self, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        """Masks of the `wanted` nuclei (indices into `prompts`); the others serve as neighbours only. A prompt
        that turns out not to be a nucleus is left out."""
        ...

    def embed(self, xy_tile: Float32, row: Int64) -> Fetch[Float32]:
        """N x `spec.embedding`: what the model sees at each point (N x 2). `row`: the point's tile in the
        batch."""
        ...


class PromptedLook(ABC):
    """What looks of models with points have in common. The model's own points are made once, when they are first
    needed; points that are given replace them."""

    @property
    def prompts(self) -> Fetch[Prompts]:
        return Ready(self._prompts)

    @cached_property
    def _prompts(self) -> Prompts:
        return self._propose()

    @abstractmethod
    def _propose(self) -> Prompts:
        """The model's own points."""

    def prompted(self, prompts: Prompts) -> Self:
        """A copy with these points, which shares everything else."""
        look = copy(self)
        look._prompts = prompts
        return look


def no_embedding(model: str) -> ModelError:
    """The error of a look whose model cannot describe points."""
    return ModelError(f"model {model}", "it has no embedding", "leave --embedding out")


@dataclass(frozen=True, slots=True)
class NucleiModel:
    """A model that is ready to look at tiles."""

    spec: ModelSpec
    look: Callable[[TileBatch], Look]
    """From the pixels of B tiles (B x H x W x 3) to what the model saw in them."""


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
