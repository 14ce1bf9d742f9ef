"""The schema of a training of classes. No torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from wsi_nuc.training.config import ImagesConfig, TrainingConfig
from wsi_nuc.training.dots.config import DotsConfig


class ClassesConfig(TrainingConfig):
    """All settings of a training of classes. `mpp` is that of the model."""

    family: Literal["classes"] = "classes"
    classes: tuple[str, ...] = ()
    """Empty: those of the dots."""
    model: str = "default"
    """Whose nuclei get the classes: "default", or the file of a compact model."""
    dots: DotsConfig | None = None
    """Dots of a slide or of a folder of images."""
    data: ImagesConfig | None = None
    """Labelled images, in place of `dots`. Where an image has outlines, its dots are the centres of these."""
    distance_um: float = Field(default=2.0, ge=0, lt=50)
    """A dot that lies in no nucleus belongs to the nearest one, if that one's centre is no farther than this."""
    least_dots_of_class: int = Field(default=10, ge=2)
    """A class with fewer dots on nuclei is refused."""
    views: int = Field(default=2, ge=1, le=16)
    """How often each image is looked at: first as it is, then mirrored or turned, with another stain."""
    colour: float = Field(default=1.0, ge=0, le=3)
    """Strength of the variation of stain, blur, noise and compression."""
    hidden: int = Field(default=64, ge=1, le=1024)
    """Channels of the hidden layer that tells classes apart."""
    strengths: tuple[float, ...] = Field(default=(1e-5, 1e-4, 1e-3), min_length=1)
    """Weights of the squared weights in the loss. That with the least loss on held-back groups is taken."""
    folds: int = Field(default=5, ge=2, le=20)
    """Parts into which the groups of images (patients) are divided to choose the strength."""
    balance: float = Field(default=0.0, ge=0, le=1)
    """How much rare classes are favoured: 0: every dot counts the same, 1: every class does."""
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=1024, ge=1, le=1 << 20)
    """Nuclei per step."""
    lr: float = Field(default=4e-3, gt=0)
    """Greatest learning rate."""
    report_every: int = Field(default=100, ge=1)
    """Steps per row of the curves."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dots is None) == (self.data is None):
            raise ValueError("needs dots with --points and --slide, or labelled images in data.train")
        return self
