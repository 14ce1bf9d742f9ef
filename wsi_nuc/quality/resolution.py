"""Can the microns per pixel be true? Nuclei have a size, and a model says what it gives where they are known.

Measured is the diameter at which half of the area of the sampled nuclei is reached. Where that is outside of what
the model gives on slides of known resolution, the slide is looked at again as if it were finer or coarser by the
factors by which headers are wrong, and the one that brings the size closest to the usual is named. Nuclei of
different organs differ nearly as much as a factor of two: a doubt is a reason to look, not a proof. A few nuclei
do not show such a range; but a median area that no tissue has is named whatever their number.
`benchmarks/resolution_check.py` counts how often a model's doubts are right.

The sample is a few tissue tiles, spread over the slide, that the model which will run looks at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import shapely

from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.inference.predict import predict_counted
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.domain import implausible_size
from wsi_nuc.tiling.grid import Region
from wsi_nuc.tiling.plan import RegionTask, TilePlan, make_plan
from wsi_nuc.tiling.read import read_region
from wsi_nuc.tissue.find import Tissue
from wsi_nuc.tissue.stain import DARK_FIELD
from wsi_nuc.types import Float64, Int64, SlideSource, TileBatch

ENOUGH_NUCLEI = 300
MOST_TILES = 6
# A network's tiles have one shape; any other model gets smaller ones, since more places say more.
SMALL_CORE_PX = 512
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
class Sample:
    """The sizes of a few nuclei."""

    mpp: float
    """Of level 0, as it is taken to be."""
    diameter_um: Float64
    """Of the circle of equal area, one entry per nucleus, if `mpp` is right."""

    @property
    def size_um(self) -> float:
        """The diameter at which half of the nuclei's area is reached: fragments hardly count, unlike in a median
        of the nuclei."""
        ordered = np.sort(self.diameter_um)
        area = np.cumsum(ordered**2)
        return float(np.interp(area[-1] / 2, area, ordered))

    @property
    def median_um2(self) -> float:
        """The area of the nucleus in the middle; NaN without one."""
        return float(np.median(np.pi / 4 * self.diameter_um**2)) if len(self.diameter_um) else math.nan


def sample_nuclei(source: SlideSource, mpp: float, area: Any, model: NucleiModel) -> Sample:
    """`area` (shapely, level-0 pixels): where there is tissue. Equal slides and models give equal samples."""
    spec = _geometry(model.spec)
    plan = make_plan(source.info, mpp, spec, area, region_size=1)
    diameters: list[Float64] = [np.zeros(0)]
    for batch in _batches(source, plan):
        prediction = predict_counted(replace(model, spec=spec), batch)
        own = prediction.nuclei.select(prediction.own)
        area_px, _ = own.areas_and_centres()
        diameters.append(2 * np.sqrt(area_px / np.pi) * plan.scale.grid_mpp)
        if sum(map(len, diameters)) >= ENOUGH_NUCLEI:
            break
    return Sample(mpp, np.concatenate(diameters))


def _geometry(spec: ModelSpec) -> ModelSpec:
    return spec if spec.uses_torch else replace(spec, core_px=min(spec.core_px, SMALL_CORE_PX))


def _batches(source: SlideSource, plan: TilePlan) -> Iterator[TileBatch]:
    """One tile at a time; places that cannot be decoded or hold no data are passed over."""
    for index in _places(plan):
        try:
            batch = read_tile(source, plan, int(index))
        except SlideError:
            return
        if batch is not None:
            yield batch


def read_tile(source: SlideSource, plan: TilePlan, index: int) -> TileBatch | None:
    """A single tile; None where it cannot be decoded or holds no data."""
    tile = plan.grid.tile(index)
    region = Region(0, (index,), tile.core_box, tile.read_box)
    try:
        pixels = next(iter(read_region(source, RegionTask(region, plan.grid, plan.scale, (plan.area,)))))
    except DamagedPixels:
        return None
    return TileBatch(pixels.rgb[None], (tile,)) if pixels.rgb is not None else None


def _places(plan: TilePlan) -> Int64:
    """Tiles that are mostly tissue before others, and among those some that lie far apart."""
    planned = np.flatnonzero(plan.planned)
    spread = (
        planned[np.unique(np.linspace(0, len(planned) - 1, 8 * MOST_TILES).astype(np.int64))]
        if len(planned)
        else planned
    )
    boxes = plan.grid.core_boxes_l0(spread)
    inside = shapely.area(shapely.intersection(plan.area, shapely.box(*boxes.T)))
    full = inside >= 0.5 * inside.max(initial=0.0)
    good = spread[full]
    order = np.argsort(np.arange(len(good)) * 0.6180339887498949 % 1.0, kind="stable")
    return np.asarray(good[order][:MOST_TILES], np.int64)


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
    implausible = implausible_size(first.median_um2, count)
    if count < FEWEST_NUCLEI and not implausible:
        reason = f"{count} nuclei were found in the sample; {FEWEST_NUCLEI} are needed to tell"
        return MppVerdict("unknown", mpp, None, count, None, usual, reason)
    size = first.size_um
    measured = f"nuclei of {size:.1f} um at {mpp:.4g} um/px, usual are {usual[0]:g} to {usual[1]:g} um"
    beyond = _beyond(size, usual) if count >= FEWEST_NUCLEI else 0.0
    if beyond == 0 and implausible:
        reason = f"{implausible}; pass --mpp to settle it"
        return MppVerdict("doubtful", mpp, None, count, size, usual, reason)
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
