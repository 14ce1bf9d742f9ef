"""The settings that every training has, whatever it trains. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from wsi_nuc.config import Section
from wsi_nuc.datasets.record import SourceConfig


class ImagesConfig(Section):
    """Labelled images. An image that does not state its resolution is taken to have the model's."""

    folder: Path | None = None
    """Relative paths of the sources start here; None: in the folder where the command was given."""
    train: tuple[SourceConfig, ...] = Field(min_length=1)
    validation: tuple[SourceConfig, ...] = ()
    workers: int = Field(default=0, ge=0, le=256)
    """Processes that prepare batches ahead; 0: none."""

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("folder") is None:
            return given
        folder = Path(given["folder"]).expanduser().absolute()
        sources = {kind: _below(folder, given[kind]) for kind in ("train", "validation") if kind in given}
        return {**given, **sources, "folder": folder}


def _below(folder: Path, sources: Any) -> Any:
    """The sources with their paths below `folder`. What is not a source stays as it is, and the schema refuses
    it."""
    return [
        {**source, "path": folder / source["path"]} if isinstance(source, Mapping) and "path" in source else source
        for source in (sources if isinstance(sources, (list, tuple)) else [sources])
    ]


class TrainingConfig(Section):
    """What every family's training has in common."""

    family: str
    """The family whose recipe is used: a name in `training.registry.RECIPES`."""
    out: Path
    """Folder of the training; given again, the training goes on."""
    classes: tuple[str, ...] = Field(min_length=1)
    mpp: float = Field(default=0.25, gt=0.01, lt=100)
    """Microns per pixel that the model works at."""
    seed: int = Field(default=0, ge=0)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch on the CPU; None: as torch chooses."""

    @field_validator("out")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("classes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("two classes have one name")
        return value
