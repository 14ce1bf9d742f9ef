"""When two candidates outline the same nucleus."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_nuc.errors import UsageError
from wsi_nuc.types import Bool, Float64


@dataclass(frozen=True, slots=True)
class StitchRule:
    """A candidate is a double, and goes, if it exceeds one of these limits."""

    covered: float = 0.5
    """For the share of it that better ones cover, all together. What is left of it would not be this nucleus."""
    containment: float = 0.75
    """For the share of a better one that lies in it. One that lies in it wholly makes it a double in any case."""

    def __post_init__(self) -> None:
        for name in ("covered", "containment"):
            limit = getattr(self, name)
            if not 0 < limit < 1:
                raise UsageError(f"stitch.{name}", f"{limit} is not between 0 and 1", "use for example 0.5")

    def doubles(self, common: Float64, better: Float64, worse: Float64) -> Bool:
        """Whether the worse ones of pairs with these areas in common, and these areas, are doubles. Written
        without divisions: rings without area are never doubles."""
        doubles: Bool = (common > self.covered * worse) | (common > self.containment * better)
        return doubles
