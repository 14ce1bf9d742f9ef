"""What to draw, and what was drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.errors import UsageError

CLASSES = ("epithelial", "inflammatory", "connective", "other")


@dataclass(frozen=True, slots=True)
class SynthSpec:
    """One synthetic slide. Equal specs give equal bytes.

    `size` and `height` in level-0 px (`height` None: square); `tissue` is the share of the slide that holds
    tissue, "auto" takes less the larger the slide; `density` multiplies the nuclei per area; `pen` adds ink
    strokes; `blank` leaves out all tissue; `quality` is JPEG's.
    """

    size: int = 4096
    height: int | None = None
    mpp: float = 0.25
    seed: int = 0
    tissue: float | str = "auto"
    density: float = 1.0
    pen: bool = False
    blank: bool = False
    quality: int = 85

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
        """A small slide is mostly tissue, as a crop is; a large one mostly glass, as a scan is."""
        if self.blank:
            return 0.0
        if isinstance(self.tissue, str):
            return min(0.9, max(0.3, 0.9 - 0.25 * math.log10(max(self.extent_um) / 500)))
        return float(self.tissue)


@dataclass(frozen=True, slots=True)
class SynthTruth:
    """Summary of a written slide; `truth` is the GeoParquet file that holds every nucleus."""

    slide: Path
    truth: Path
    spec: SynthSpec
    nuclei: int
    classes: Mapping[str, int]
