"""What one task is told: the row group of a store whose nuclei it measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsi_nuc.types import SlideRef


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
