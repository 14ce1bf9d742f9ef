"""When two candidates count as the same nucleus: the rule of the conflict graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.types import Bool, Float64


@dataclass(frozen=True, slots=True)
class StitchRule:
    """Two candidates are rivals if they exceed one of these limits."""

    iou: float = 0.5
    """For intersection / union."""
    containment: float = 0.8
    """For intersection / smaller area. It catches what IoU cannot: a part nested in its whole. 1.0 is off."""

    def __post_init__(self) -> None:
        if not 0 < self.iou < 1:
            raise UsageError("stitch.iou", f"{self.iou} is not between 0 and 1", "use for example 0.5")
        if not 0 < self.containment <= 1:
            raise UsageError(
                "stitch.containment", f"{self.containment} is not in (0, 1]", "use for example 0.8, or 1 for off"
            )

    def rivals(self, common: Float64, area_a: Float64, area_b: Float64) -> Bool:
        """Whether pairs with these areas, and these areas in common, are one nucleus. Written without divisions:
        rings without area are never rivals."""
        nested = common > self.containment * np.minimum(area_a, area_b)
        same = common > self.iou * (area_a + area_b - common)
        rivals: Bool = nested | same
        return rivals
