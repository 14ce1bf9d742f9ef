"""What to draw, and a summary of what was drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.errors import UsageError

CLASSES = ("epithelial", "inflammatory", "connective", "other")


@dataclass(frozen=True, slots=True)
class SynthSpec:
    """A synthetic slide. Equal specs give equal bytes."""

    size: int = 4096
    """Width, in level-0 pixels."""
    height: int | None = None
    """In level-0 pixels; None for a square."""
    mpp: float = 0.25
    """Microns per level-0 pixel."""
    seed: int = 0
    tissue: float | str = "auto"
    """The share of the slide that holds tissue; "auto" takes a smaller share for a larger slide."""
    density: float = 1.0
    """Multiplies the nuclei per area."""
    pen: bool = False
    """Adds ink strokes."""
    blank: bool = False
    """Leaves out all tissue."""
    quality: int = 85
    """JPEG's, from 1 to 100."""

    def __post_init__(self) -> None:
        tissue_ok = self.tissue == "auto" or (isinstance(self.tissue, int | float) and 0 <= self.tissue <= 1)
        for name, value, ok, remedy in (
            ("size", self.size, 16 <= self.size <= 2**20, "give 16 to 1048576 px"),
            ("height", self.height, 16 <= self.height_px <= 2**20, "give 16 to 1048576 px"),
            ("mpp", self.mpp, 0.05 <= self.mpp <= 4, "give 0.05 to 4 um per px"),
            ("tissue", self.tissue, tissue_ok, 'give "auto" or a share from 0 to 1'),
            ("density", self.density, 0 <= self.density <= 4, "give 0 to 4"),
            ("quality", self.quality, 1 <= self.quality <= 100, "give 1 to 100"),
        ):
            if not ok:
                raise UsageError(f"synthetic slide, {name}={value}", "the value is out of range", remedy)

    @property
    def height_px(self) -> int:
        return self.size if self.height is None else self.height

    @property
    def extent_um(self) -> tuple[float, float]:
        return self.size * self.mpp, self.height_px * self.mpp

    @property
    def tissue_share(self) -> float:
        """A small slide is mostly tissue, like a crop, and a large one is mostly glass, like a scan."""
        if self.blank:
            return 0.0
        if isinstance(self.tissue, str):
            return min(0.9, max(0.3, 0.9 - 0.25 * math.log10(max(self.extent_um) / 500)))
        return float(self.tissue)


@dataclass(frozen=True, slots=True)
class SynthTruth:
    """Summary of a written slide."""

    slide: Path
    truth: Path
    """The GeoParquet file that holds every nucleus."""
    spec: SynthSpec
    nuclei: int
    classes: Mapping[str, int]
    """Nuclei of each class."""
