"""The schema of a training of PromptNucSeg: data, networks, losses, and how each stage runs. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from wsi_nuc.config import Section
from wsi_nuc.models.compact.settings import NetSettings
from wsi_nuc.models.promptnucseg.settings import (
    CONV,
    WINDOW_PX,
    PrompterSettings,
    SegmentorSettings,
    Settings,
    UseSettings,
)
from wsi_nuc.training.config import ImagesConfig, TrainingConfig
from wsi_nuc.training.pretrained import sizes_of
from wsi_nuc.training.promptnucseg.published import Preset, Recipe, expanded

GRID = WINDOW_PX // 16
Part = Literal["segmentor", "prompter", "together"]


class DataConfig(ImagesConfig):
    """The images of the training. Without `validation` the last state is kept instead of the best one."""

    crops_per_image: int = Field(default=1, ge=1, le=10_000)
    """How often an epoch visits each image."""
    augment: bool | Literal["released", "compact"] = True
    """True: the augmentations of Table S1. "released": the released code's lists, which differ between the stages.
    "compact": those of the compact network, which turn, enlarge and restain. False: only crop."""
    cut_nuclei: Literal["apart", "whole"] = "apart"
    """Parts of a nucleus that a crop or RandomGridShuffle separates are nuclei of their own, if they have 12 px or
    more ("apart"), or stay one nucleus with one point ("whole", as in the released code)."""
    points: Literal["mass", "contour"] = "mass"
    """Where the true point of a nucleus lies: at its centre of mass, or at that of its largest outline, rounded to
    whole pixels ("contour", as in the released code). If that is outside of the nucleus, the innermost pixel."""
    mirrored_points: bool = True
    """A whole image is continued, as in a mirror, to a multiple of the anchors' distance. Whether nuclei in this
    strip have points; in the released code they have none."""


class LossConfig(Section):
    """The losses: their weights, named as in the paper, and their variants."""

    omega: float = Field(default=20.0, ge=0)
    """Focal loss of the masks (Eq. 2)."""
    alpha: float = Field(default=0.1, ge=0)
    """Distance in the matching (Eq. 3)."""
    beta: float = Field(default=0.4, gt=0)
    """Background class (Eq. 4)."""
    gamma: float = Field(default=5e-3, ge=0)
    """Regression (Eq. 4)."""
    mask: float = Field(default=1.0, ge=0)
    """Region mask (Eq. 5); 0 leaves this task out."""
    classes: float = Field(default=1.0, ge=0)
    """Classes of the segmentor, where it has the [cls] token."""
    focal_alpha: float | None = Field(default=0.25, gt=0, lt=1)
    """Weight of the foreground in both focal losses (background: 1 - alpha), as in the focal loss paper and in
    SAM. None weights neither, as the released code."""
    dice: Literal["mask", "batch"] = "mask"
    """The mean over each "mask", plus 1 above and below the fraction as in SAM; or that of all masks of the
    "batch" as if they were one, as in the released code."""
    iou: Literal["hard", "soft"] = "hard"
    """The IoU that is to be predicted: of the thresholded mask ("hard"), or of its probabilities, which then
    learn from this loss too ("soft", as in the released code)."""
    class_mean: Literal["anchors", "weights"] = "anchors"
    """What the class loss is divided by: the number of "anchors" as in Eq. 4, or the sum of their "weights" (1
    for a nucleus, beta for background) as in the released code."""
    regression: Literal["l2", "squared"] = "l2"
    """Either "l2" as in the paper or "squared" as in the released code."""
    near_tokens: int = Field(default=GRID, ge=3, le=GRID)
    """Edge, in tokens of 16 px, of what is learned of a mask around its point; 16: the whole window, as
    published."""
    matching: Literal["hungarian", "nearest"] = "hungarian"
    """For comparison, "nearest" gives each nucleus the anchor that is nearest on the unmoved grid."""


class PromptConfig(Section):
    """The prompts that the segmentor learns from."""

    nuclei: int = Field(default=25, ge=1, le=1024)
    """At most so many nuclei are sampled in each crop (the paper's Z)."""
    negatives: int = Field(default=1, ge=0, le=16)
    """How many of the nearest other points come with each point (the paper's K)."""
    positive: Literal["random", "near", "centre"] = "random"
    """A "random" pixel of the nucleus as in the paper, one "near" its centre, or its "centre"."""


class StageConfig(Section):
    """One run of the loop."""

    batch: int = Field(default=16, ge=1, le=65_536)
    """Images per step, over all processes."""
    epochs: int = Field(default=200, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    """The greatest learning rate."""
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    """Course of the learning rate after the warm-up. "steps": it is multiplied by `decay` after each of the
    `milestones`, as MultiStepLR does."""
    milestones: tuple[int, ...] = ()
    """Epochs, for the schedule "steps"."""
    decay: float = Field(default=0.1, gt=0, lt=1)
    """Factor of the schedule "steps"."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises."""
    clip: float = Field(default=0.0, ge=0)
    """Greatest norm of the gradient; 0: no limit."""
    encoder: float = Field(default=1.0, ge=0, le=1)
    """Share of the learning rate with which the encoder of `TrainConfig.encoder` learns; 0: it stays as it is."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the averaged weights; 0: no average."""
    ema_after: int = Field(default=0, ge=0)
    """In this many epochs the average is a copy of the weights, as in the released code. 0: it is an average from
    the start, at first over fewer steps."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs from one validation to the next."""
    save_every: int = Field(default=1, ge=1)
    """Epochs from one saved state to the next."""
    crop_px: int = Field(default=WINDOW_PX, ge=64, le=4096)
    """Edge of the crops, which only the prompter may have larger than its window of 256 px: 1000 for Kumar's whole
    images. A smaller image is filled up."""


class StagesConfig(Section):
    """How each stage runs."""

    segmentor: StageConfig = StageConfig()
    prompter: StageConfig = StageConfig()
    together: StageConfig = StageConfig()


class TrainConfig(TrainingConfig):
    """All settings of a training of PromptNucSeg."""

    family: Literal["promptnucseg"] = "promptnucseg"
    recipe: Recipe | None = None
    """Use the values of the "paper" or of the "released" code for all keys that are not given."""
    preset: Preset | None = None
    """The data set whose published values are used for keys that are not given."""
    data: DataConfig
    prompter: PrompterSettings = PrompterSettings()
    segmentor: SegmentorSettings = SegmentorSettings()
    use: UseSettings = UseSettings()
    prompts: PromptConfig = PromptConfig()
    loss: LossConfig = LossConfig()
    stages: tuple[Part, ...] = ("segmentor", "prompter")
    """The stages in their order. The segmentor comes first, so that the prompter is validated by the masks that
    its points lead to. "together" trains both at once; where they share the encoder, it is the only choice."""
    train: StagesConfig = StagesConfig()
    cuts: Literal["validation", "given"] = "validation"
    """Whether the cuts of `use` are chosen on the validation images after the training, or stay as given. In the
    parity mode, without outlined images, and where only a part is trained they stay."""
    init: tuple[Path, ...] = ()
    """Files of weights to start from, native or foreign."""
    encoder: str = ""
    """The trained convolutional encoder that both parts share where segmentor.size is conv: "default", that of the
    default model; a compact file; or "efficientnet-lite0" to "-lite2", ImageNet's from its package. "": none, so
    it begins with random weights."""

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, given: Any) -> Any:
        return expanded(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise ValueError("stages must name each stage once, and at least one")
        if self.prompter.shared_encoder and self.stages != ("together",):
            raise ValueError("with prompter.shared_encoder the only stage is [together]")
        if self.encoder and self.segmentor.size != CONV:
            raise ValueError("encoder needs segmentor.size: conv")
        if self.segmentor.size == CONV and not self.prompter.shared_encoder:
            raise ValueError("segmentor.size: conv needs prompter.shared_encoder: true")
        if self.prompter.class_agnostic and not self.segmentor.class_token and len(self.classes) > 1:
            raise ValueError(
                "with prompter.class_agnostic nothing classifies, unless segmentor.class_token is true"
            )
        for part in ("segmentor", "together"):
            if getattr(self.train, part).crop_px != WINDOW_PX:
                raise ValueError(f"train.{part}.crop_px must be {WINDOW_PX}, the window of the segmentor")
        return self

    def settings(self) -> Settings:
        """What the header of the trained file will say."""
        net = sizes_of(self.encoder) if self.encoder else NetSettings()
        return Settings(self.classes, self.mpp, self.prompter, self.segmentor, net, self.use)
