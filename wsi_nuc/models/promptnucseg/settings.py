"""What a PromptNucSeg file's header says of its networks and of how they are used. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.settings import NetSettings
from wsi_nuc.models.options import section

WINDOW_PX = 256
CONV = "conv"


@dataclass(frozen=True, slots=True)
class PrompterSettings:
    """The network that proposes points."""

    backbone: str = "convnext_small"
    """A timm name."""
    levels: int = 3
    """Pyramid levels that an anchor looks at (3 on PanNuke, 4 elsewhere)."""
    channels: int = 256
    """Channels of the pyramid and the heads."""
    space_px: int = 8
    """Distance of the anchors (8 on PanNuke, 16 elsewhere)."""
    dropout: float = 0.1
    """Share of the heads' values that training drops."""
    shared_encoder: bool = False
    """Features come from the segmentor's image encoder, and `backbone` is not used."""
    class_agnostic: bool = False
    """Tell nuclei from background only, and leave the classes to the segmentor (Table 8)."""


@dataclass(frozen=True, slots=True)
class SegmentorSettings:
    """The network that makes masks."""

    size: str = "vit_b"
    """A name in `sam.model.SIZES`, or "conv": a convolutional encoder with the sizes of `Settings.net`."""
    class_token: bool = False
    """The segmentor classifies, not the prompter."""


@dataclass(frozen=True, slots=True)
class UseSettings:
    """How the trained networks are used. Lengths are in pixels of the model's resolution."""

    threshold: float | None = None
    """Least probability of being a nucleus of a point; None: more probable than background, as published."""
    mask_logit: float = 0.0
    """A pixel with a higher logit belongs to the mask; the parity mode always takes 0."""
    nms_radius_px: float = 12.0
    """Of two points closer than this the better one stays (12 on PanNuke, 11 on Kumar)."""
    mask_filter: bool = True
    """Drop points where the region mask is background."""
    negatives: int = 1
    """How many of the nearest other points are given to the segmentor with each point."""
    overlap_px: int = 64
    """Overlap of the segmentor's windows, which are 256 px wide."""
    windows: int = 6
    """Windows along each side of a tile."""
    neighbourhood_tokens: int = 5
    """Edge, in tokens of 16 px, of what is decoded first around a prompt; 16 decodes the whole window."""
    largest_nucleus_px: int = 96
    """Masks are cut to this size in x and y."""
    margin_px: int = 8
    """How far beyond its core a tile still proposes points."""
    precision: str = "auto"
    """Number format: "fp32", "bf16", or "auto" (bf16 where the device has it; fp32 in parity mode)."""
    batch: int = 1
    """Tiles per batch."""
    mode: str = "default"
    """Either "default" or "parity": windows, edge rule and suppression as published, see `parity`."""
    tta: bool = False
    """Average six views of the pixels: those of the segmentor, and in the default mode of the prompter too."""
    box_iou: float = 0.5
    """Limit of the suppression in parity mode (0.5, on Kumar 0.3)."""
    multiple_px: int = 1
    """In parity mode, images are mirrored beyond their right and lower edge to a multiple of this before windows
    are laid (16 for Kumar B)."""

    def __post_init__(self) -> None:
        limits = {
            "threshold": self.threshold is None or 0 < self.threshold < 1,
            "mask_logit": -10 < self.mask_logit < 10,
            "overlap_px": 0 <= self.overlap_px <= WINDOW_PX // 2,
            "windows": 1 <= self.windows <= 64,
            "neighbourhood_tokens": 1 <= self.neighbourhood_tokens <= WINDOW_PX // 16,
            "largest_nucleus_px": 1 <= self.largest_nucleus_px <= WINDOW_PX,
            "negatives": 0 <= self.negatives <= 16,
            "precision": self.precision in ("auto", "fp32", "bf16"),
            "core_px": self.core_px > 0,
            "mode": self.mode in ("default", "parity"),
            "box_iou": 0 <= self.box_iou <= 1,
            "multiple_px": 1 <= self.multiple_px <= WINDOW_PX,
        }
        for name, fine in limits.items():
            if not fine:
                value = getattr(self, name)
                raise ModelError(f"use.{name} = {value!r}", "out of range", "correct the model file's header")

    @property
    def reach_px(self) -> int:
        """The size of the largest mask. The published way cuts no mask, so one may fill its window."""
        return WINDOW_PX if self.mode == "parity" else self.largest_nucleus_px

    @property
    def averages_points(self) -> bool:
        """The released code has no other views for its prompter."""
        return self.tta and self.mode == "default"

    @property
    def halo_px(self) -> int:
        return self.reach_px + self.margin_px

    @property
    def core_px(self) -> int:
        """The windows of a tile, laid side by side, cover its core, the margin and half an overlap around them."""
        covered = WINDOW_PX + (self.windows - 1) * (WINDOW_PX - self.overlap_px)
        return covered - self.overlap_px - 2 * self.margin_px


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the header of a PromptNucSeg file says of it."""

    classes: tuple[str, ...]
    """Without background, in the order of the prompter's logits."""
    mpp: float
    """Microns per pixel that the networks work at."""
    prompter: PrompterSettings = field(default_factory=PrompterSettings)
    segmentor: SegmentorSettings = field(default_factory=SegmentorSettings)
    net: NetSettings = field(default_factory=NetSettings)
    """Sizes of the encoder and the pyramid where the segmentor's size is "conv"; otherwise without meaning."""
    use: UseSettings = field(default_factory=UseSettings)

    def to_header(self) -> dict[str, Any]:
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Self:
        """Only the keys of this record are read; a section's unknown key is an error."""
        missing = [name for name in ("classes", "mpp") if name not in header]
        if missing:
            raise ModelError(
                "model header", f"lacks {', '.join(missing)}", "convert the original checkpoint again"
            )
        return cls(
            classes=tuple(str(name) for name in header["classes"]),
            mpp=float(header["mpp"]),
            prompter=section(PrompterSettings, header, "prompter"),
            segmentor=section(SegmentorSettings, header, "segmentor"),
            net=section(NetSettings, header, "net"),
            use=section(UseSettings, header, "use"),
        )


@dataclass(frozen=True, slots=True)
class Preset:
    """How the released code uses its models of a data set. Values by size are those of B, L and H."""

    classes: tuple[str, ...]
    """In the order of its prompter's logits."""
    levels: int
    """Pyramid levels of its prompter, by which a file is recognised."""
    space_px: int
    nms_radius_px: float
    mask_filter: bool
    box_iou: float
    negatives: tuple[int, int, int]
    multiple_px: tuple[int, int, int]

    def use(self, size: str) -> dict[str, Any]:
        """Values of `UseSettings` for a segmentor of this size; sizes that were not released count as B."""
        of_size = {"vit_l": 1, "vit_h": 2}.get(size, 0)
        values = {name: getattr(self, name) for name in ("nms_radius_px", "mask_filter", "box_iou")}
        by_size = {name: getattr(self, name)[of_size] for name in ("negatives", "multiple_px")}
        return values | by_size | {"overlap_px": 64, "tta": False}


# From the configurations in github.com/windygoo/PromptNucSeg. Of the prompter (prompter/config/pannuke123.py,
# kumar.py, cpm17.py): `neck.num_outs` and `space`, which are also in supplement A, `test.nms_thr` and
# `test.filtering`. Of the segmentor (segmentor/config/pannuke123_b.py and so on): `post.iou_threshold`,
# `num_neg_prompt` (the paper says K = 1 everywhere), and `PadIfNeeded` among the transforms of `test`, which L and
# H of Kumar have commented out. `--overlap` is 64 and `--tta` is off unless they are given (segmentor/main.py).
# Classes are in the order of segmentor/datasets/*/extract_data.py.
PRESETS = {
    "pannuke": Preset(
        classes=("neoplastic", "inflammatory", "connective", "dead", "epithelial"),
        levels=3, space_px=8, nms_radius_px=12.0, mask_filter=False, box_iou=0.5,
        negatives=(0, 0, 0), multiple_px=(1, 1, 1),
    ),
    "kumar": Preset(
        classes=("nucleus",),
        levels=4, space_px=16, nms_radius_px=11.0, mask_filter=True, box_iou=0.3,
        negatives=(0, 0, 0), multiple_px=(16, 1, 1),
    ),
    "cpm17": Preset(
        classes=("nucleus",),
        levels=4, space_px=16, nms_radius_px=12.0, mask_filter=True, box_iou=0.5,
        negatives=(0, 0, 1), multiple_px=(1, 1, 1),
    ),
}  # fmt: skip
