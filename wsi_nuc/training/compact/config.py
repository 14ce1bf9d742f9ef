"""The schema of a compact model's training. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from wsi_nuc.config import Section
from wsi_nuc.datasets.record import SourceConfig
from wsi_nuc.models.compact.settings import NetSettings, Settings, UseSettings
from wsi_nuc.training.config import ImagesConfig, TrainingConfig


class WeightedSource(SourceConfig):
    """`weight`: how often a crop comes from this source, relative to the others."""

    weight: float = Field(default=1.0, gt=0)


class DataConfig(ImagesConfig):
    train: tuple[WeightedSource, ...] = Field(min_length=1)
    workers: int = Field(default=1, ge=0, le=64)


class CropConfig(Section):
    """`scale`: least and greatest enlargement. `colour`: strength of the variation of stain, blur, noise and
    compression. `prompts`: most nuclei of a crop whose masks are learned; `negatives`: share of them that are told
    their nearest neighbour."""

    size_px: int = Field(default=256, ge=64, le=1024, multiple_of=32)
    scale: tuple[float, float] = (0.75, 1.35)
    colour: float = Field(default=1.0, ge=0, le=3)
    prompts: int = Field(default=16, ge=1, le=256)
    negatives: float = Field(default=0.75, ge=0, le=1)


class LossWeights(Section):
    """`background`: of prompts where nothing is. `classes`: of each class, in order."""

    heat: float = 1.0
    offset: float = 0.5
    kind: float = 1.0
    region: float = 1.0
    towards: float = 0.5
    mask: float = 5.0
    dice: float = 2.0
    quality: float = 0.5
    background: float = 0.5
    classes: tuple[float, ...] = ()


class CompactTrainConfig(TrainingConfig):
    """The learning rate is steady after `warmup` steps and falls to 0 over the last `decay` share of `steps`."""

    family: Literal["compact"] = "compact"
    data: DataConfig
    net: NetSettings = NetSettings()
    use: UseSettings = UseSettings()
    crop: CropConfig = CropConfig()
    loss: LossWeights = LossWeights()
    steps: int = Field(default=20_000, ge=1)
    batch: int = Field(default=8, ge=1, le=4096)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    warmup: int = Field(default=300, ge=0)
    decay: float = Field(default=0.35, ge=0, le=1)
    clip: float = Field(default=5.0, ge=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    report_every: int = Field(default=500, ge=1)
    init: Path | None = None
    """A file of weights to start from."""
    tuned_as: Path | None = None
    """A finished file whose cuts are taken, where the validation images were trained on."""

    def settings(self) -> Settings:
        return Settings(self.classes, self.mpp, self.net, self.use)
