"""What a compact model's file says of its network and its use, and what planning needs to know. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.models.options import section
from wsi_nuc.results_numbers import NUMBERS

STRIDES = (2, 4, 8, 16, 32)
POINT_STRIDE = 4
MASK_STRIDE = 2
LEAST_CHANNELS = 16
OUTLINE_PX = 4  # an outline that encloses its mask's area may run this far outside of it
ARCHITECTURE = "compact"
RESIDUAL = "residual"
Side = tuple[int, int]  # how a view runs along x and y: 1 as it is, -1 mirrored
# The views that each number of views stands for. Mirrored along both axes, a tile meets the grid of strides at
# other pixels in x and in y; so the second view is that one.
VIEWS: dict[int, tuple[Side, ...]] = {
    1: ((1, 1),),
    2: ((1, 1), (-1, -1)),
    4: ((1, 1), (-1, 1), (1, -1), (-1, -1)),
}
# Channels of the maps at strides 2, 4, 8, 16 and 32, as timm builds `tf_efficientnet_lite0` and so on.
LITE: dict[str, tuple[int, ...]] = {
    "efficientnet-lite0": (16, 24, 40, 112, 320),
    "efficientnet-lite1": (16, 24, 40, 112, 320),
    "efficientnet-lite2": (16, 24, 48, 120, 352),
}


@dataclass(frozen=True, slots=True)
class NetSettings:
    """The sizes of the network."""

    stem: int = 24
    """Channels at stride 2."""
    widths: tuple[int, ...] = (48, 96, 192, 256)
    """Channels of the encoder at strides 4, 8, 16 and 32."""
    blocks: tuple[int, ...] = (2, 2, 2, 1)
    """Residual blocks of the encoder at the same strides."""
    pyramid: tuple[int, ...] = (48, 96, 128)
    """Channels of the way back up, at strides 4, 8 and 16."""
    mask_channels: int = 16
    """Channels of the features from which masks are made."""
    hidden: int = 16
    """Channels of the two hidden layers that each prompt gets of its own."""
    prompt_channels: int = 128
    """Length of a prompt's embedding."""
    class_hidden: int = 0
    """Channels of the hidden layer that tells classes apart, see `net.PooledClasses`; 0: none, each cell of a mask
    says a class, and the mean counts."""
    encoder: str = RESIDUAL
    """"residual", or "efficientnet-lite0" to "-lite2", whose channels `stem` and `widths` must be."""
    low_pass: int = 0
    """At this many of its first halvings, the residual encoder low-passes what it halves."""

    def __post_init__(self) -> None:
        # On CPUs, torch 2.13's gradient of a strided 1 x 1 convolution of 8 channels writes beyond its memory.
        if min(self.stem, *self.widths) < LEAST_CHANNELS:
            cause = f"stem {self.stem} and widths {self.widths} must have {LEAST_CHANNELS} channels each"
            raise ModelError("net", cause, "make them wider")
        if len(self.widths) != 4 or len(self.blocks) != 4 or len(self.pyramid) != 3:
            cause = "needs four widths, four numbers of blocks and three widths of the pyramid"
            raise ModelError("net", cause, "give as many as there are strides")
        channels = (self.stem, *self.widths)
        if self.encoder not in (RESIDUAL, *LITE) or LITE.get(self.encoder, channels) != channels:
            known = ", ".join(f"{name} has {LITE[name]}" for name in LITE)
            cause = f"there is no encoder {self.encoder} of {channels} channels"
            raise ModelError("net.encoder", cause, f"use {RESIDUAL}, or one of these: {known}")


@dataclass(frozen=True, slots=True)
class UseSettings:
    """How the trained network is used. Lengths are in pixels of its resolution; all values were chosen on
    validation images."""

    threshold: float = 0.2
    """Least score of a point."""
    least_score: float = 0.0
    """Nuclei with a lower calibrated score are not reported."""
    nms_radius_px: float = 6.0
    """Of two points closer than this the better one stays."""
    mask_logit: float = 0.0
    """A pixel with a higher logit belongs to the mask."""
    least_area_px: int = 30
    """Smaller masks are dropped."""
    window_px: int = 96
    """Edge of a prompt's neighbourhood, so no mask is larger."""
    margin_px: int = 8
    """How far beyond its core a tile still proposes points."""
    halo_px: int = 64
    """Context on each side of a tile's core."""
    tile_px: int = 1024
    """Edge of what one call of the network sees, halo included."""
    batch: int = 1
    """Tiles per batch."""
    calibration: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Weights of the logits of point score and predicted IoU, and a constant. They make the score the probability
    of being right."""
    views: int = 1
    """1, 2 (also mirrored along both axes) or 4 (also along each alone): the answers for these views of a tile are
    averaged. More is slower and better."""
    precision: str = "auto"
    """Number format: "fp32", "bf16", or "auto" (bf16 where the device has it)."""

    def __post_init__(self) -> None:
        limits = {
            "threshold": 0 < self.threshold < 1,
            "least_score": 0 <= self.least_score < 1,
            "window_px": 16 <= self.window_px <= 512 and self.window_px % (2 * MASK_STRIDE) == 0,
            "tile_px": self.tile_px % STRIDES[-1] == 0 and self.core_px > 0,
            "halo_px": self.halo_px >= self.reach_px + self.margin_px,
            "views": self.views in VIEWS,
            "precision": self.precision in ("auto", "fp32", "bf16"),
            "calibration": len(self.calibration) == 3,
        }
        for name, fine in limits.items():
            if not fine:
                value = getattr(self, name)
                raise ModelError(f"use.{name} = {value!r}", "out of range", "correct the model file's header")

    @property
    def reach_px(self) -> int:
        """A window begins at a whole cell at stride 2."""
        return self.window_px // 2 + MASK_STRIDE + OUTLINE_PX

    @property
    def core_px(self) -> int:
        return self.tile_px - 2 * self.halo_px


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the header of a compact model's file says of it."""

    classes: tuple[str, ...]
    """In the order of the logits."""
    mpp: float
    """Microns per pixel that the network works at."""
    net: NetSettings = field(default_factory=NetSettings)
    use: UseSettings = field(default_factory=UseSettings)
    beside: tuple[NetSettings, ...] = ()
    """Further networks in the file, whose answers are averaged with those of the first."""
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """How the training images looked, see `models.domain`; empty: unknown."""

    def __post_init__(self) -> None:
        if any((net.class_hidden > 0) != (self.net.class_hidden > 0) for net in self.beside):
            cause = "some of its networks tell classes by cells and others by nuclei"
            raise ModelError("beside", cause, "join networks that were trained in the same way")

    @property
    def nets(self) -> tuple[NetSettings, ...]:
        return (self.net, *self.beside)

    def to_header(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Self:
        """Only the keys of this record are read; a section's unknown key is an error."""
        return cls(
            classes=tuple(str(name) for name in header["classes"]),
            mpp=float(header["mpp"]),
            net=section(NetSettings, header, "net"),
            use=section(UseSettings, header, "use"),
            beside=tuple(section(NetSettings, {"net": net}, "net") for net in header.get("beside", ())),
            domain={name: (float(low), float(high)) for name, (low, high) in header.get("domain", {}).items()},
        )


def spec_of(settings: Settings, weights_sha256: str, name: str = ARCHITECTURE) -> ModelSpec:
    use = settings.use
    return ModelSpec(
        name=name,
        classes=settings.classes,
        mpp=settings.mpp,
        core_px=use.core_px,
        halo_px=use.halo_px,
        largest_nucleus_px=use.window_px + 2 * OUTLINE_PX,
        margin_px=use.margin_px,
        batch=use.batch,
        weights_sha256=weights_sha256,
        uses_torch=True,
        reach_px=use.reach_px,
        domain=settings.domain,
        embedding=sum(net.prompt_channels for net in settings.nets) * use.views,
        copyable=True,
        results=NUMBERS[ARCHITECTURE],
    )
