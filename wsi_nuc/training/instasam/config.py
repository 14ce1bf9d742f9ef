"""The schema of an InstaSAM training. No torch here.

Where the paper leaves a choice, or where this program chooses otherwise, the setting quotes the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from wsi_nuc.config import Section
from wsi_nuc.models.instasam.settings import AdapterSettings, UseSettings
from wsi_nuc.training.compact.config import Cropping
from wsi_nuc.training.config import ImagesConfig, TrainingConfig
from wsi_nuc.training.dots.config import DotsConfig

STAGE = "instasam"


class PseudoConfig(Section):
    """How the masks of the dots become labels (Eqs. 2 to 4)."""

    delta: float = Field(default=0.5, gt=0, lt=1)
    """A pixel with a higher probability belongs to the nucleus."""
    epsilon: float = Field(default=0.3, gt=0)
    """A pixel with this entropy or more is ignored."""
    entropy: Literal["printed", "binary", "off"] = "printed"
    """"printed": Eq. 3 as it stands, -p log p summed over all nuclei, so that a pixel in the neighbourhood of many
    nuclei is ignored. "binary": -p log p - (1 - p) log(1 - p) of the winning mask alone. "off": no pixel is
    ignored for its entropy."""
    overlap: bool = True
    """A pixel that two nuclei claim is ignored (Eq. 4, F < 2). Otherwise the more probable one has it."""


class CropConfig(Cropping):
    """How crops are made."""

    masks: int = Field(default=16, ge=1)
    """In each crop, the masks of at most this many dots are learned; S' is made of all of them. The paper does not
    limit them."""


class LossWeights(Section):
    """The weight of each loss. The paper: "1, 1, and 5, respectively"; it has no classes."""

    masks: float = 1.0
    """L_S': the masks of the dots against the first labels."""
    foreground: float = 1.0
    """L_B."""
    distances: float = 5.0
    """L_D."""
    classes: float = 1.0
    """Cross-entropy of the dots' classes."""


class InstaSamConfig(TrainingConfig):
    """All settings of an InstaSAM training."""

    family: Literal["instasam"] = "instasam"
    classes: tuple[str, ...] = ()
    """Empty: those of the dots, or "nucleus" where no dot has a class."""
    dots: DotsConfig | None = None
    """Dots and their slide or images. A tenth of them is held back for the report."""
    data: ImagesConfig | None = None
    """Labelled images in place of dots, for comparing. Where an image has outlines, its dots are their centres."""
    shift_px: tuple[float, float] = (0.0, 0.0)
    """The dots are moved at random by a distance between these two: for the study of careless clicks."""
    frozen: str = "default"
    """What is frozen: "default" or another compact or InstaSAM file (its encoder), "efficientnet-lite0" to
    "efficientnet-lite2" (ImageNet), or, as in the paper, an official file of SAM such as sam_vit_b_01ec64.pth,
    whose size is seen from its tensors."""
    decoder: Literal["all", "tokens"] = "all"
    """What is trained of the nuclei decoder over SAM, of which the paper says both. "all": "an additional fully
    trainable nuclei decoder". "tokens": "train only the adapters, and tokens and Multi-Layer Perceptrons (MLPs) in
    the nuclei decoder"."""
    first: str = "default"
    """Where the first labels S come from: "default" or another compact or InstaSAM file, prompted with the dots;
    "frozen": the model of `frozen`, which of SAM is SAM itself; "voronoi": clusters of colours within Voronoi
    cells; "masks": the true outlines, for comparing."""
    learned: Literal["refined", "first"] = "refined"
    """What foreground and distances are learned from. "refined": S', the masks that the network itself gives for
    the dots. "first": S."""
    pseudo: PseudoConfig = PseudoConfig()
    refresh: int = Field(default=1, ge=1)
    """Steps from one network that makes S' to the next. The paper: "as the learning process progresses"; 1: the
    network of this step."""
    adapter: AdapterSettings = AdapterSettings()
    crop: CropConfig = CropConfig()
    loss: LossWeights = LossWeights()
    use: UseSettings = UseSettings()
    steps: int = Field(default=1_500, ge=1)
    batch: int = Field(default=4, ge=1, le=4096)
    """Crops per step. The paper: "a batch size of 4"."""
    lr: float = Field(default=1e-3, gt=0)
    """The paper: "learning rate of 1e-4", for SAM, whose decoder is trained already."""
    weight_decay: float = Field(default=0.01, ge=0)
    t_max: int = Field(default=0, ge=0)
    """Half the period of the cosine; 0: all steps, so that the rate falls once. The paper: "CosineAnnealingLR with
    a t_max of 20"."""
    t_max_unit: Literal["epochs", "steps"] = "epochs"
    """The paper does not say whether it counts epochs or steps."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the averaged weights; 0: no average, as in the paper."""
    report_every: int = Field(default=100, ge=1)
    """Steps per epoch, which is a row of the curves."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.first == "frozen" and self.frozen.startswith("efficientnet"):
            raise ValueError("an ImageNet network makes no masks: set first to voronoi or to a model")
        if (self.dots is None) == (self.data is None):
            raise ValueError("it needs either dots (--points and --slide) or data")
        if self.data is not None and not self.classes:
            raise ValueError("data needs classes")
        low, high = self.shift_px
        if not 0 <= low <= high:
            raise ValueError("shift_px needs a least and a greatest distance, such as [2, 4]")
        return self

    workers: int = Field(default=1, ge=0, le=64)
    """Processes that prepare batches ahead; 0: none."""
    curve: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of the dots that are trained on for the report, which shows whether more dots would help. Without
    `dots` there is no report."""
    curve_steps: int = Field(default=200, ge=1)
    """Steps of each of these trainings."""

    @property
    def average(self) -> Path:
        """The file of the averaged network."""
        return self.out / STAGE / "average.safetensors"
