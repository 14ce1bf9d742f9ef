"""When two candidates outline the same nucleus, and which of two others keeps what they share."""

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
    containment: float = 0.75
    """For intersection / smaller area. It catches what IoU cannot: a part nested in its whole."""

    def __post_init__(self) -> None:
        for name in ("iou", "containment"):
            limit = getattr(self, name)
            if not 0 < limit < 1:
                raise UsageError(f"stitch.{name}", f"{limit} is not between 0 and 1", "use for example 0.5")

    def rivals(self, common: Float64, area_a: Float64, area_b: Float64) -> Bool:
        """Whether pairs with these areas, and these areas in common, are one nucleus. Written without divisions:
        rings without area are never rivals."""
        nested = common > self.containment * np.minimum(area_a, area_b)
        same = common > self.iou * (area_a + area_b - common)
        rivals: Bool = nested | same
        return rivals


def worse_keeps(common: Float64, better: Float64, worse: Float64) -> Bool:
    """Whether the worse one of two neighbours keeps what they have in common, since it would lose more than half
    of itself, and the better one does not."""
    keeps: Bool = (2 * common > worse) & (2 * common <= better)
    return keeps
