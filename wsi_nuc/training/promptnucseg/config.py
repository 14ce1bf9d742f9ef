"""The schema of a training of PromptNucSeg: data, networks, losses, and how each stage is run. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from wsi_nuc.config import Section
from wsi_nuc.models.promptnucseg.settings import PrompterSettings, SegmentorSettings, Settings, UseSettings
from wsi_nuc.training.config import ImagesConfig, TrainingConfig

Part = Literal["segmentor", "prompter", "together"]


class DataConfig(ImagesConfig):
    """`validation` may be empty: the last state is kept then."""

    crops_per_image: int = Field(default=1, ge=1, le=10_000)
    """How often an epoch visits each image."""
    augment: bool = True


class LossConfig(Section):
    """`omega`: focal loss of masks (Eq. 2); `alpha`: distance in the matching (Eq. 3); `beta`: background class,
    `gamma`: regression (Eq. 4); `mask`: region mask (Eq. 5; 0 leaves the task out). `regression`: "l2" as in the
    paper or "squared" as in the released code. `matching`: "nearest" gives each nucleus the nearest anchor as it
    stands, for comparison."""

    omega: float = Field(default=20.0, ge=0)
    alpha: float = Field(default=0.1, ge=0)
    beta: float = Field(default=0.4, gt=0)
    gamma: float = Field(default=5e-3, ge=0)
    mask: float = Field(default=1.0, ge=0)
    classes: float = Field(default=1.0, ge=0)
    regression: Literal["l2", "squared"] = "l2"
    matching: Literal["hungarian", "nearest"] = "hungarian"


class PromptConfig(Section):
    """`nuclei`: Z, sampled in each crop; `negatives`: K, nearest other points. `positive`: "random" pixels of a
    nucleus as in the paper, or its "centre"."""

    nuclei: int = Field(default=25, ge=1, le=1024)
    negatives: int = Field(default=1, ge=0, le=16)
    positive: Literal["random", "centre"] = "random"


class StageConfig(Section):
    """One run of the loop. `batch` counts images over all processes. `ema`: decay of the averaged weights, 0 for
    none. `clip`: greatest norm of the gradient, 0 for no limit. `validate_every`, `save_every`: epochs."""

    batch: int = Field(default=16, ge=1, le=65_536)
    epochs: int = Field(default=200, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    clip: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    validate_every: int = Field(default=1, ge=1)
    save_every: int = Field(default=1, ge=1)


class StagesConfig(Section):
    segmentor: StageConfig = StageConfig()
    prompter: StageConfig = StageConfig()
    together: StageConfig = StageConfig()


class TrainConfig(TrainingConfig):
    """Everything that a training of PromptNucSeg can be told."""

    family: Literal["promptnucseg"] = "promptnucseg"
    data: DataConfig
    prompter: PrompterSettings = PrompterSettings()
    segmentor: SegmentorSettings = SegmentorSettings()
    use: UseSettings = UseSettings()
    prompts: PromptConfig = PromptConfig()
    loss: LossConfig = LossConfig()
    stages: tuple[Part, ...] = ("segmentor", "prompter")
    """"segmentor" first, so that the prompter is validated by the masks its points lead to; "together" trains both
    at once, and is the only way where they share the encoder."""
    train: StagesConfig = StagesConfig()
    init: tuple[Path, ...] = ()
    """Files of weights to start from, native or foreign."""

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise ValueError("stages must name each stage once, and at least one")
        if self.prompter.shared_encoder and self.stages != ("together",):
            raise ValueError("with prompter.shared_encoder the only stage is [together]")
        return self

    def settings(self) -> Settings:
        """What the trained file's header will say."""
        return Settings(self.classes, self.mpp, self.prompter, self.segmentor, self.use)
