"""What one task is told: the row group of a store whose nuclei it measures.

Features as a part of what a result is made from: a store has those of one results number, or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsi_nuc.results import NUMBERS
from wsi_nuc.types import SlideRef

Json = dict[str, Any]


def settings(embedding_of: str = "") -> Json:
    """What `config` of an identity key says of the features; `embedding_of`: sha256 of a model's weights."""
    return {"results": NUMBERS["features"], **({"embedding": embedding_of} if embedding_of else {})}


def has_features(key: Json | None) -> bool:
    return key is not None and "features" in key.get("config", {})


def without_features(key: Json) -> Json:
    """The key of the same nuclei alone."""
    return {**key, "config": {name: value for name, value in key["config"].items() if name != "features"}}


def with_features(key: Json, embedding_of: str = "") -> Json:
    return {**key, "config": {**key["config"], "features": settings(embedding_of)}}


def embedding_of(key: Json) -> str:
    return str(key["config"].get("features", {}).get("embedding", ""))


def covers(there: Json, asked: Json) -> bool:
    """`there` has the same nuclei and all the features that are asked for, and perhaps more."""
    if without_features(there) != without_features(asked):
        return False
    has, wants = (key["config"].get("features", {}) for key in (there, asked))
    return bool(wants.items() <= has.items())


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model whose embedding is wanted, as `load_model` takes it: `size` numbers a nucleus, by these weights."""

    model: str
    device: str
    size: int
    weights_sha256: str
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class GroupJob:
    """`store`: a folder with the nuclei, published or about to be. `group`: which of its row groups. `model`: its
    embedding comes after the features of the table."""

    store: str
    slide: SlideRef
    group: int
    mpp: float
    classes: tuple[str, ...]
    model: ModelRef | None = None

    def __str__(self) -> str:
        return f"{self.slide.path}, nuclei of row group {self.group}"
