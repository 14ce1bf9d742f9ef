"""What features are measured of: the task for one row group, and features in the identity key of a result.

The key of a result says what it is made from. A store has the features of one results number, or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsi_nuc.features.registry import COARSEST_UM
from wsi_nuc.results_numbers import NUMBERS
from wsi_nuc.types import SlideRef

Json = dict[str, Any]
Vector = tuple[float, float, float]
Vectors = tuple[Vector, Vector]
"""Optical densities of red, green and blue: of haematoxylin, and of DAB."""


def settings(embedding_of: str = "", dab: str = "") -> Json:
    """What `config` of an identity key says about the features.

    `embedding_of`: sha256 of a model's weights. `dab`: the vectors, where DAB is measured.
    """
    further = {"embedding": embedding_of, "dab": dab}
    return {"results": NUMBERS["features"], **{name: value for name, value in further.items() if value}}


def has_features(key: Json | None) -> bool:
    return key is not None and "features" in key.get("config", {})


def without_features(key: Json) -> Json:
    """The key of the same nuclei without features."""
    return {**key, "config": {name: value for name, value in key["config"].items() if name != "features"}}


def with_features(key: Json, embedding_of: str = "", dab: str = "") -> Json:
    return {**key, "config": {**key["config"], "features": settings(embedding_of, dab)}}


def with_those_of(stored: Json, asked: Json) -> Json:
    """The key `asked` with the further features of a `stored` result of the same nuclei, which it would lose."""
    has, wants = (key["config"].get("features", {}) for key in (stored, asked))
    kept = {name: value for name, value in has.items() if name != "embedding" or value == asked["weights_sha256"]}
    return {**asked, "config": {**asked["config"], "features": {**kept, **wants}}}


def noted(mpp: float, dab: Vectors | None = None) -> Json:
    """What the counts of a manifest say of features: the vectors of DAB, and what is left empty.

    `mpp`: of level 0.
    """
    vectors = {"dab_vectors": [list(vector) for vector in dab]} if dab else {}
    if mpp <= COARSEST_UM:
        return vectors
    why = f"they are measured at 0.5 um per pixel, and the scan has {mpp:.4g}, which would have to be enlarged"
    families = "stain, texture, boundary and DAB" if dab else "stain, texture and boundary"
    return {**vectors, "not_measured": [f"{families}: {why}"]}


def embedding_of(key: Json) -> str:
    return str(key["config"].get("features", {}).get("embedding", ""))


def dab_of(key: Json) -> str:
    """The vectors of DAB that a result was measured with; "" for none."""
    return str(key["config"].get("features", {}).get("dab", ""))


def covers(stored: Json, asked: Json) -> bool:
    """Whether `stored` has the nuclei of `asked` and at least its features."""
    if without_features(stored) != without_features(asked):
        return False
    has, wants = (key["config"].get("features", {}) for key in (stored, asked))
    return bool(wants.items() <= has.items())


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model whose embedding is asked for, as `load_model` takes it."""

    model: str
    device: str
    size: int
    """Numbers per nucleus."""
    weights_sha256: str
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class GroupJob:
    """One task: measure the nuclei of one row group of a store."""

    store: str
    """A folder with the nuclei, published or about to be."""
    slide: SlideRef
    group: int
    """Which of the row groups."""
    mpp: float
    classes: tuple[str, ...]
    model: ModelRef | None = None
    """Its embedding comes after the features of the table."""
    lost_l0: tuple[tuple[float, ...], ...] = ()
    """x0, y0, x1, y1 of the places near these nuclei that have no result."""
    dab: Vectors | None = None
    """The stains, where DAB is measured."""

    def __str__(self) -> str:
        return f"{self.slide.path}, nuclei of row group {self.group}"
