"""The schema of a compact model's training. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from wsi_nuc.config import Section
from wsi_nuc.datasets.record import SourceConfig
from wsi_nuc.models.compact.settings import NetSettings, Settings, UseSettings
from wsi_nuc.training.config import ImagesConfig, TrainingConfig


class WeightedSource(SourceConfig):
    """A data set to train on."""

    weight: float = Field(default=1.0, gt=0)
    """How often a crop comes from this source, relative to the others."""
    known_mpp: bool = True
    """Whether the resolution was measured. Where it was only estimated, the images do not say how large nuclei
    are."""
    stain_px: tuple[float, float] = (0.0, 0.0)
    """How far right and down of the labels the stain lies, in pixels of the model's resolution. Crops mend it."""


class DataConfig(ImagesConfig):
    train: tuple[WeightedSource, ...] = Field(min_length=1)
    """A source without labels, such as a folder of slides (`reader: slides`), teaches only by way of a teacher."""
    workers: int = Field(default=1, ge=0, le=64)


class Cropping(Section):
    """How crops are made."""

    size_px: int = Field(default=256, ge=64, le=1024, multiple_of=32)
    """Edge of a crop."""
    scale: tuple[float, float] = (0.75, 1.35)
    """Least and greatest enlargement."""
    colour: float = Field(default=1.0, ge=0, le=3)
    """Strength of the variation of stain, blur, noise and compression."""


class CropConfig(Cropping):
    """How crops and their prompts are made."""

    prompts: int = Field(default=16, ge=1, le=256)
    """In each crop, the masks of at most this many nuclei are learned."""
    negatives: float = Field(default=0.75, ge=0, le=1)
    """Share of the prompts that come with their nearest neighbour."""


class LossWeights(Section):
    """The weight of each loss."""

    heat: float = 1.0
    """Whether a cell holds a centre."""
    offset: float = 0.5
    """From a cell to the centre near it."""
    kind: float = 1.0
    """The class of a cell."""
    region: float = 1.0
    """The foreground."""
    towards: float = 0.5
    """From a pixel to the centre of its nucleus."""
    mask: float = 5.0
    """Cross-entropy of the masks."""
    dice: float = 2.0
    """Dice of the masks."""
    quality: float = 0.5
    """The predicted IoU."""
    agreement: float = 0.0
    """How far apart the answers for a crop and for the same crop, moved by a few pixels, are. Half of the batch is
    looked at again for it; with 0, nothing is."""
    background: float = 0.5
    """Weight of a prompt that lies on no nucleus, among the masks; a nucleus has 1."""
    classes: tuple[float, ...] = ()
    """Weight of each class, in order; empty: all the same."""


class TeacherConfig(Section):
    """Trained models whose answers the network also learns, on every crop, with labels or without."""

    models: tuple[str, ...] = ()
    """Names or files of the compact family, with the same classes; the mean of their answers counts."""
    views: Literal[1, 2, 4] = 1
    """The answers for this many mirrored views of each crop are averaged."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the teacher's answers beside the labels."""
    prompts: int = Field(default=8, ge=1, le=64)
    """In each crop, at most this many of the teacher's masks are learned."""


class CompactTrainConfig(TrainingConfig):
    """All settings of a training of the compact network."""

    family: Literal["compact"] = "compact"
    data: DataConfig
    net: NetSettings = NetSettings()
    use: UseSettings = UseSettings()
    crop: CropConfig = CropConfig()
    loss: LossWeights = LossWeights()
    teacher: TeacherConfig = TeacherConfig()
    steps: int = Field(default=20_000, ge=1)
    batch: int = Field(default=8, ge=1, le=4096)
    """Crops per step, over all processes."""
    lr: float = Field(default=2e-3, gt=0)
    """The learning rate while it is steady."""
    weight_decay: float = Field(default=0.02, ge=0)
    warmup: int = Field(default=300, ge=0)
    """Steps until the learning rate is steady."""
    decay: float = Field(default=0.35, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to 0."""
    clip: float = Field(default=5.0, ge=0)
    """Greatest norm of the gradient; 0: no limit."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged weights; 0: no average."""
    report_every: int = Field(default=500, ge=1)
    """Steps per row of the curves."""
    init: Path | None = None
    """A file of weights to start from."""
    keep_norms: bool = False
    """Norms use the statistics of the starting weights, and not those of each batch: for small batches that go on
    from trained weights."""
    tuned_as: Path | None = None
    """A finished file whose cuts are used: for a training on all images, which leaves none to tune on."""

    @field_validator("net")
    @classmethod
    def _cells_say_classes(cls, value: NetSettings) -> NetSettings:
        if value.class_hidden:
            raise ValueError("class_hidden belongs to `wsi-nuc train classes`: leave it out")
        return value

    def settings(self) -> Settings:
        return Settings(self.classes, self.mpp, self.net, self.use)
