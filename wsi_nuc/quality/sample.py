"""A quick sample of nuclei: a few tissue tiles, spread over the slide, through the model that will run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely

from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.inference.predict import predict_counted
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.slides.base import SlideSource
from wsi_nuc.tiling.grid import Region
from wsi_nuc.tiling.plan import TilePlan, make_plan
from wsi_nuc.tiling.read import read_region
from wsi_nuc.tiling.task import RegionTask
from wsi_nuc.types import Float64, Int64, TileBatch

ENOUGH_NUCLEI = 300
MOST_TILES = 6
# A network's tiles have one shape; any other model gets smaller ones, since more places say more.
SMALL_CORE_PX = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """`diameter_um`: of the circle of equal area, one entry a nucleus, if `mpp` (level 0) is right."""

    mpp: float
    diameter_um: Float64

    @property
    def size_um(self) -> float:
        """The diameter at which half of the nuclei's area is reached: fragments hardly count, unlike in a median
        of the nuclei."""
        ordered = np.sort(self.diameter_um)
        area = np.cumsum(ordered**2)
        return float(np.interp(area[-1] / 2, area, ordered))


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
        tile = plan.grid.tile(int(index))
        region = Region(0, (tile.index,), tile.core_box, tile.read_box)
        try:
            pixels = next(iter(read_region(source, RegionTask(region, plan.grid, plan.scale, (plan.area,)))))
        except DamagedPixels:
            continue
        except SlideError:
            return
        if pixels.rgb is not None:
            yield TileBatch(pixels.rgb[None], (tile,))


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
