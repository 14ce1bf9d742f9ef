"""Can the microns per pixel be true? Nuclei have a size, and a model says what it gives where they are known.

Measured is the diameter at which half of the area of the sampled nuclei is reached. Where that is outside of what
the model gives on slides of known resolution, the slide is looked at again as if it were finer or coarser by the
factors by which headers are wrong, and the one that brings the size closest to the usual is named. Nuclei of
different organs differ nearly as much as a factor of two: a doubt is a reason to look, not a proof.
`benchmarks/resolution_check.py` counts how often a model's doubts are right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wsi_nuc.errors import SlideError
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.quality.sample import Sample, sample_nuclei
from wsi_nuc.slides.base import SlideSource
from wsi_nuc.tissue.find import Tissue
from wsi_nuc.tissue.stain import DARK_FIELD

Verdict = Literal["plausible", "doubtful", "impossible", "unknown"]

FEWEST_NUCLEI = 50
# A scan labelled with another objective is off by two or four.
FACTORS = (0.25, 0.5, 2.0, 4.0)
# For a model that does not say what it gives. A network whose masks follow the size of what is there gave 4.0 to
# 8.2 um on 19 real colon and breast images of known resolution; half the resolution and twice it left this range
# in about two of three.
ANY_MODEL_UM = (3.9, 9.2)
# This far beyond the range, relative to its width, no organ is known to be.
FAR = 0.25


@dataclass(frozen=True, slots=True)
class MppVerdict:
    """`size_um`: measured, if `mpp` is right; `usual_um`: what the model gives on slides of known resolution.

    `implied_mpp` is None unless the verdict is doubtful or impossible and another value fits.
    """

    verdict: Verdict
    mpp: float
    implied_mpp: float | None
    nuclei: int
    size_um: float | None
    usual_um: tuple[float, float]
    reason: str

    @property
    def fine(self) -> bool:
        return self.verdict in ("plausible", "unknown")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def check_mpp(source: SlideSource, mpp: float, tissue: Tissue, model: NucleiModel) -> MppVerdict:
    """Judge `mpp` (level 0) by a sample of nuclei in the tissue.

    Whoever passed --mpp has settled the matter; the caller decides whether to ask at all.
    """
    usual = usual_um(model.spec)
    if tissue.method == DARK_FIELD:
        return MppVerdict("unknown", mpp, None, 0, None, usual, "it looks like fluorescence, not H&E")
    return judge(lambda value: sample_nuclei(source, value, tissue.polygons, model), mpp, usual)


def usual_um(spec: ModelSpec) -> tuple[float, float]:
    return spec.nucleus_um or ANY_MODEL_UM


def judge(sample: Callable[[float], Sample], mpp: float, usual: tuple[float, float]) -> MppVerdict:
    """`sample` measures the nuclei as if the slide had a given resolution."""
    first = sample(mpp)
    count = len(first.diameter_um)
    if count < FEWEST_NUCLEI:
        reason = f"{count} nuclei were found in the sample; {FEWEST_NUCLEI} are needed to tell"
        return MppVerdict("unknown", mpp, None, count, None, usual, reason)
    size = first.size_um
    measured = f"nuclei of {size:.1f} um at {mpp:.4g} um/px, usual are {usual[0]:g} to {usual[1]:g} um"
    beyond = _beyond(size, usual)
    if beyond == 0:
        return MppVerdict("plausible", mpp, None, count, size, usual, measured)
    implied = _implied(sample, first, usual)
    verdict: Verdict = "impossible" if abs(beyond) > FAR else "doubtful"
    why = "too coarse" if beyond > 0 else "too fine"
    hint = f"{implied:.4g} um/px would fit; " if implied else ""
    reason = f"{measured}: the resolution seems {why}; {hint}pass --mpp to settle it"
    return MppVerdict(verdict, mpp, implied, count, size, usual, reason)


def _beyond(size_um: float, usual: tuple[float, float]) -> float:
    """How far outside of the range a size is, in widths of the range on a logarithmic scale; 0 inside."""
    low, high = (math.log(edge) for edge in usual)
    value = math.log(size_um)
    return (min(0.0, value - low) + max(0.0, value - high)) / (high - low)


def _implied(sample: Callable[[float], Sample], first: Sample, usual: tuple[float, float]) -> float | None:
    """Of the usual errors, the one that brings the size closest to the middle of the range."""
    too_large = first.size_um > usual[1]
    middle = math.sqrt(usual[0] * usual[1])
    best, distance = None, abs(math.log(first.size_um / middle))
    for factor in (f for f in FACTORS if (f < 1) == too_large):
        try:
            other = sample(first.mpp * factor)
        except SlideError:
            # No model reads a slide that would be so coarse.
            continue
        if len(other.diameter_um) >= FEWEST_NUCLEI and abs(math.log(other.size_um / middle)) < distance:
            best, distance = other.mpp, abs(math.log(other.size_um / middle))
    return best
