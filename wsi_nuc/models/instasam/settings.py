"""What an InstaSAM file says of its network and its use, and what planning needs to know. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.models.compact.settings import LITE, OUTLINE_PX, STRIDES, NetSettings
from wsi_nuc.models.options import section
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX
from wsi_nuc.results_numbers import NUMBERS

ARCHITECTURE = "instasam"
COMPACT = "compact"
# SAM's vision transformers, and roughly how many seconds a CPU core takes for a window.
VIT = {"vit_b": 1.1, "vit_l": 4.0, "vit_h": 8.0, "vit_tiny": 0.1, "vit_mini": 0.1}
ENCODERS = (COMPACT, *LITE, *VIT)
MAPS = 3  # foreground, horizontal and vertical distance
# How far the windows in which a vision transformer looks at a larger image overlap, at least.
OVERLAP_PX = 64
TOKEN_PX = 16


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The adapters, which are trained while the encoder between them stays as it is."""

    channels: int = 32
    """Channels of the tuning layer of each adapter. SAM-Adapter has a 32nd of the width of the vision transformer,
    which is 24, 32 or 40."""
    frequencies: float = 0.25
    """Share of the image's spectrum, by area, that counts as low frequencies and is left out. The paper does not
    state it; SAM-Adapter, which it follows, uses this value."""


@dataclass(frozen=True, slots=True)
class UseSettings:
    """How the trained network is used. Lengths are in pixels of its resolution."""

    foreground: float = 0.5
    """Least probability of foreground of a nucleus's pixels."""
    marker: float = 0.4
    """A pixel whose edge strength is at least this belongs to no marker."""
    least_area_px: int = 30
    """Smaller nuclei are dropped."""
    largest_px: int = 96
    """A nucleus that is larger than this in x or y is dropped."""
    margin_px: int = 8
    """How far beyond its core a tile still proposes nuclei."""
    halo_px: int = 112
    """Context on each side of a tile's core."""
    tile_px: int = 1024
    """Edge of what one call of the network sees, halo included."""
    batch: int = 1
    """Tiles per batch."""
    precision: str = "auto"
    """Number format: "fp32", "bf16", or "auto" (bf16 where the device has it)."""

    def __post_init__(self) -> None:
        limits = {
            "foreground": 0 < self.foreground < 1,
            "marker": 0 < self.marker < 1,
            "tile_px": self.tile_px % STRIDES[-1] == 0 and self.core_px > 0,
            "halo_px": self.halo_px >= self.largest_px + OUTLINE_PX + self.margin_px,
            "precision": self.precision in ("auto", "fp32", "bf16"),
        }
        for name, fine in limits.items():
            if not fine:
                value = getattr(self, name)
                raise ModelError(f"use.{name} = {value!r}", "out of range", "correct the model file's header")

    @property
    def core_px(self) -> int:
        return self.tile_px - 2 * self.halo_px


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the header of an InstaSAM file says of it."""

    classes: tuple[str, ...]
    """In the order of the logits."""
    mpp: float
    """Microns per pixel that the network works at."""
    encoder: str = COMPACT
    """What is frozen: one of `ENCODERS`."""
    net: NetSettings = field(default_factory=NetSettings)
    """The sizes of the encoder, the pyramid and the prompted decoder."""
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    decoder: str = "all"
    """What is trained of the nuclei decoder over a vision transformer: "all" or "tokens"."""
    window_px: int = 96
    """Edge of the neighbourhood in which the mask of a dot is made. Only training makes such masks."""
    use: UseSettings = field(default_factory=UseSettings)
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """How the training images looked, see `models.domain`; empty: unknown."""

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            cause = f"there is no such encoder: {self.encoder!r}"
            raise ModelError("model header", cause, f"use one of {', '.join(ENCODERS)}")
        if self.decoder not in ("all", "tokens") or (self.decoder == "tokens" and self.encoder not in VIT):
            cause = f"with {self.encoder}, the decoder's {self.decoder!r} cannot be trained alone"
            raise ModelError("decoder", cause, "use all; over a vision transformer also tokens")
        if self.window_px % TOKEN_PX or not 0 < self.window_px <= WINDOW_PX:
            raise ModelError(f"window_px = {self.window_px}", "out of range", f"use a multiple of {TOKEN_PX}")

    @property
    def cpu_tile_s(self) -> float:
        """Roughly how many seconds a CPU core takes for a tile."""
        if self.encoder not in VIT:
            return 1.0
        side = 1 + max(0, -(-(self.use.tile_px - WINDOW_PX) // (WINDOW_PX - OVERLAP_PX)))
        return side**2 * VIT[self.encoder]

    def to_header(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Self:
        """Only the keys of this record are read; a section's unknown key is an error."""
        return cls(
            classes=tuple(str(name) for name in header["classes"]),
            mpp=float(header["mpp"]),
            encoder=str(header.get("encoder", COMPACT)),
            net=section(NetSettings, header, "net"),
            adapter=section(AdapterSettings, header, "adapter"),
            decoder=str(header.get("decoder", "all")),
            window_px=int(header.get("window_px", 96)),
            use=section(UseSettings, header, "use"),
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
        largest_nucleus_px=use.largest_px + OUTLINE_PX,
        margin_px=use.margin_px,
        batch=use.batch,
        weights_sha256=weights_sha256,
        uses_torch=True,
        domain=settings.domain,
        cpu_tile_s=settings.cpu_tile_s,
        copyable=True,
        results=NUMBERS[ARCHITECTURE],
    )
