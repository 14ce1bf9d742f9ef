"""Regions that a user has drawn: GeoJSON as QuPath exports annotations, each with its name and class.

Each feature with an area is a region of its own, also where two of them overlap. What crosses itself is mended,
and what reaches beyond the slide is cut; both are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.datasets.readers.geojson import class_name
from wsi_nuc.errors import UsageError
from wsi_nuc.rings import Geometries
from wsi_nuc.store.reading import meet
from wsi_nuc.tissue.area import polygons_only
from wsi_nuc.tissue.geojson import REMEDY, load, polygon, rings_of
from wsi_nuc.types import Bool, Float64, Int64

# Objects of QuPath that are not drawn regions.
NOT_REGIONS = ("detection", "cell", "root")
EXPORT = "export the annotations of QuPath as GeoJSON"
WRONG_PIXELS = (
    "give level-0 pixels of this slide, or micrometres with `--unit um`; these may be of another slide, or pixels "
    "of another level"
)


@dataclass(frozen=True, slots=True)
class Regions:
    """N regions of a slide."""

    shapes: Geometries
    """Valid MultiPolygons in level-0 pixels."""
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """The class of each region; "" for none."""
    mended: int = 0
    """Regions that crossed themselves."""
    cut: int = 0
    """Regions that reached beyond the slide."""
    passed_over: int = 0
    """Objects that are not regions: points, lines, detections."""

    def __len__(self) -> int:
        return len(self.shapes)

    def places(self, xy: Float64) -> tuple[Int64, Int64]:
        """The row of each point (N x 2) that lies in a region, and that region. A point may lie in several."""
        if not len(xy) or not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        low, high = xy.min(axis=0), xy.max(axis=0)
        boxes = shapely.bounds(self.shapes)
        near = np.flatnonzero(meet(boxes, (low[0] - 1, low[1] - 1, high[0] + 1, high[1] + 1)))
        rows, regions = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        # From left to right, so that only the points of a stripe are looked at.
        order = np.argsort(xy[:, 0])
        x, y = xy[order, 0], xy[order, 1]
        first, last = np.searchsorted(x, boxes[:, 0], "left"), np.searchsorted(x, boxes[:, 2], "right")
        for region in near.tolist():
            stripe = slice(first[region], last[region])
            close = order[stripe][(y[stripe] >= boxes[region, 1]) & (y[stripe] <= boxes[region, 3])]
            held = close[holds(self.shapes[region], xy[close])]
            rows.append(held)
            regions.append(np.full(len(held), region))
        return np.concatenate(rows), np.concatenate(regions)


def holds(shape: Any, xy: Float64) -> Bool:
    """N: whether each point lies in the region. Of regions with a common border each point of it is in one.

    A point on the border is inside if a step to the right, and then an even smaller one down, leads inside: a box
    holds its left and upper side, and not the others. The answer is exact for the coordinates as they are.
    """
    shapely.prepare(shape)
    held: Bool = np.asarray(shapely.contains_xy(shape, xy[:, 0], xy[:, 1]), np.bool_)
    others = np.flatnonzero(~held)
    border = others[shapely.intersects_xy(shape, xy[others, 0], xy[others, 1])]
    if len(border):
        begin, end = _edges(shape)
        held[border] = [_beside(begin, end, point) for point in xy[border]]
    return held


def _edges(shape: Any) -> tuple[Float64, Float64]:
    """Both ends of every edge, M x 2 each, the upper one first."""
    corners, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(shape)), return_index=True)
    same = ring[:-1] == ring[1:]
    first, second = corners[:-1][same], corners[1:][same]
    swapped = (first[:, 1] > second[:, 1])[:, None]
    return np.where(swapped, second, first), np.where(swapped, first, second)


def _beside(begin: Float64, end: Float64, point: Float64) -> bool:
    """Whether an odd number of edges crosses the ray from the point to the right. Fractions make it exact."""
    x, y = map(Fraction, point.tolist())
    crossed = 0
    for edge in np.flatnonzero((begin[:, 1] <= point[1]) & (end[:, 1] > point[1])).tolist():
        x0, y0, x1, y1 = map(Fraction, (*begin[edge].tolist(), *end[edge].tolist()))
        crossed += (x1 - x0) * (y - y0) > (x - x0) * (y1 - y0)
    return crossed % 2 == 1


def whole_slide(width: int, height: int) -> Regions:
    """The slide as its only region."""
    return Regions(np.array([shapely.MultiPolygon([shapely.box(0, 0, width, height)])], object), ("slide",), ("",))


def read_regions(path: Path, width: int, height: int, scale: float = 1.0) -> Regions:
    """The regions of a file, on a slide of this size. `scale`: level-0 pixels per unit of the file."""
    shapes: list[Any] = []
    names, kinds, mended, cut, passed_over = [], [], 0, 0, 0
    slide = shapely.box(0, 0, width, height)
    for feature in _features(path, load(str(path))):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        polygons = [polygon(str(path), rings) for rings in rings_of(str(path), feature)]
        if not polygons or str(properties.get("objectType", "")).lower() in NOT_REGIONS:
            passed_over += 1
            continue
        name, number = str(properties.get("name") or ""), len(shapes) + 1
        raw = shapely.transform(np.array(polygons, object), lambda xy: xy * scale)
        mended += not shapely.is_valid(shapely.MultiPolygon(list(raw)))
        shape = polygons_only(shapely.make_valid(raw))
        inside = polygons_only(shapely.intersection(shape, slide))
        label = f"region {number}" + (f" ({name})" if name else "")
        if shape.is_empty:
            raise UsageError(path, f"{label} has no area", REMEDY)
        if inside.is_empty:
            box = ", ".join(f"{edge:.6g}" for edge in shape.bounds)
            cause = f"{label} (x0, y0, x1, y1: {box}) lies wholly off the slide of {width} x {height} px"
            raise UsageError(path, cause, WRONG_PIXELS)
        cut += not shapely.covers(slide, shape)
        shapes.append(inside)
        names.append(name)
        kinds.append(class_name(feature))
    if not shapes:
        raise UsageError(path, "it holds no region", EXPORT)
    return Regions(np.array(shapes, object), tuple(names), tuple(kinds), mended, cut, passed_over)


def _features(path: Path, document: Any) -> Iterator[dict[str, Any]]:
    """The features of a collection or of a plain list (QuPath writes both), or a single one."""
    listed = document.get("features", [document]) if isinstance(document, dict) else document
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise UsageError(path, "is not a GeoJSON feature collection", EXPORT)
    yield from listed
