"""One field of a slide, looked at in seconds: what a run would find there, and how long it would take."""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
import shapely

from wsi_nuc.errors import UsageError
from wsi_nuc.inference.predict import predict_counted
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.quality.resolution import read_tile
from wsi_nuc.run.level0 import inside_and_valid, to_level0
from wsi_nuc.store.reading import meet
from wsi_nuc.tiling.plan import TilePlan, make_plan
from wsi_nuc.tiling.scale import choose_scale
from wsi_nuc.tissue.find import Tissue
from wsi_nuc.types import Box, Overview, SlideSource

FIELD_UM = 200.0
# Optical density in red, on the overview: glass is below the first, folds, ink and pigment are above the second.
_STAINED, _TOO_DARK = 0.15, 0.8


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model sees in a field."""

    model: str
    classes: tuple[str, ...]
    nuclei: NucleiTable
    """Those whose prompt lies in the field, in level-0 pixels."""
    tile_seconds: float
    """Of one tile, reading included."""
    tiles: int
    """Of the whole slide."""

    @property
    def counts(self) -> dict[str, int]:
        many = np.bincount(self.nuclei.class_id, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, many, strict=True))

    def slide_seconds(self, workers: int) -> float:
        """About how long the tiles of the whole slide take."""
        return self.tile_seconds * self.tiles / max(1, workers)


def field_at(source: SlideSource, mpp: float, xy_l0: tuple[float, float], field_um: float = FIELD_UM) -> Box:
    """The field around a point, moved into the slide."""
    info = source.info
    if not (0 <= xy_l0[0] < info.width and 0 <= xy_l0[1] < info.height):
        cause = f"lies outside of the slide, which has {info.width} x {info.height} px"
        raise UsageError(f"--at {xy_l0[0]:g},{xy_l0[1]:g}", cause, "give x,y in pixels of level 0")
    edges = [min(round(field_um / mpp), side) for side in (info.width, info.height)]
    corner = [
        int(np.clip(middle - edge / 2, 0, side - edge))
        for middle, edge, side in zip(xy_l0, edges, (info.width, info.height), strict=True)
    ]
    return Box(corner[0], corner[1], corner[0] + edges[0], corner[1] + edges[1])


def most_cellular(source: SlideSource, view: Overview, tissue: Tissue, field_um: float = FIELD_UM) -> Box:
    """The field with the most haematoxylin, which is what takes away red, among those that are mostly tissue."""
    edge = max(1, round(field_um / view.um_per_px))
    red = -np.log((view.rgb[:, :, 0].astype(np.float32) + 1) / 256)
    inside = np.zeros(red.shape, np.float32)
    for polygon in shapely.get_parts(tissue.polygons):
        ring = np.round(np.array(polygon.exterior.coords) / view.l0_per_px - 0.5).astype(np.int32)
        cv2.fillPoly(inside, [ring], 1.0)
    share = cv2.blur(inside * (red > _STAINED), (edge, edge), borderType=cv2.BORDER_CONSTANT)
    usable = inside * (red < _TOO_DARK)
    amount = cv2.blur(red * usable, (edge, edge), borderType=cv2.BORDER_CONSTANT)
    amount[share < 0.8 * share.max(initial=0.0)] = 0
    y, x = np.unravel_index(int(amount.argmax()), amount.shape)
    middle = ((float(x) + 0.5) * view.l0_per_px, (float(y) + 0.5) * view.l0_per_px)
    limit = (source.info.width - 1.0, source.info.height - 1.0)
    return field_at(source, view.mpp, (min(middle[0], limit[0]), min(middle[1], limit[1])), field_um)


def within_a_tile(source: SlideSource, mpp: float, field: Box, spec: ModelSpec) -> Box:
    """The field, moved into the core of the tile that holds its middle, if it fits: then one look is enough."""
    scale = choose_scale(source.info, mpp, spec.mpp)
    core, moved = spec.core_px * scale.l0_per_grid, []
    for low, high, side in ((field.x0, field.x1, source.info.width), (field.y0, field.y1, source.info.height)):
        first = (low + high) / 2 // core * core
        last = min(first + core, side) - (high - low)
        moved.append(int(min(max(low, np.ceil(first)), max(last, first))) if last >= first else low)
    return Box(moved[0], moved[1], moved[0] + field.x1 - field.x0, moved[1] + field.y1 - field.y0)


def tried(
    source: SlideSource, mpp: float, tissue: Tissue, field: Box, model: NucleiModel, warm_up: bool = False
) -> Trial:
    """Look at the tiles that the field meets, as a run would. `warm_up`: look once before the time is taken, since
    a GPU's first look takes longer."""
    spec = model.spec
    plan = make_plan(source.info, mpp, spec, tissue.polygons)
    parts, seconds = [NucleiTable.empty(len(spec.classes))], list[float]()
    for index in _tiles(plan, field):
        start = time.perf_counter()
        batch = read_tile(source, plan, index)
        if batch is None:
            continue
        if warm_up and not seconds:
            predict_counted(model, batch)
            start = time.perf_counter()
        prediction = predict_counted(model, batch)
        table, kept, _ = inside_and_valid(to_level0(prediction.nuclei, plan.grid), source.info)
        parts.append(table.select(prediction.own[kept]))
        seconds.append(time.perf_counter() - start)
    table = NucleiTable.concat(parts)
    x, y = table.prompt_xy.T
    inside = (x >= field.x0) & (x < field.x1) & (y >= field.y0) & (y < field.y1)
    each = float(np.median(seconds)) if seconds else 0.0
    return Trial(spec.name, spec.classes, table.select(inside), each, plan.planned_tiles)


def _tiles(plan: TilePlan, field: Box) -> list[int]:
    """The tiles whose cores meet the field."""
    boxes = plan.grid.core_boxes_l0(np.arange(plan.grid.tiles))
    met: list[int] = np.flatnonzero(meet(boxes, (field.x0, field.y0, field.x1, field.y1))).tolist()
    return met
