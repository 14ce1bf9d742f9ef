"""A user's polygons: GeoJSON in level-0 pixels, as QuPath and others export it, checked and repaired."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import shapely

from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.tissue.area import polygons_only, whole
from wsi_nuc.types import SlideInfo

LARGEST_BYTES = 256 * 2**20
LARGEST_COORDINATE = 1e10
CONTAINERS = {"FeatureCollection": "features", "GeometryCollection": "geometries"}
REMEDY = "export the polygons as GeoJSON in level-0 pixels"


def read_polygons(path: str, info: SlideInfo) -> Any:
    """All polygons of the file as one valid MultiPolygon within the slide.

    UsageError where the file itself is at fault, SlideError where it does not fit this slide.
    """
    merged = parse_polygons(path, load(path))
    clipped = polygons_only(shapely.intersection(merged, whole(info.box_l0)))
    if clipped.is_empty:
        box = ", ".join(f"{edge:.6g}" for edge in merged.bounds)
        raise SlideError(
            path,
            f"its polygons (x0, y0, x1, y1: {box}) lie wholly off the slide of {info.width} x {info.height} px",
            "use level-0 pixel coordinates; these may be micrometres, or pixels of another level or another slide",
        )
    return clipped


def parse_polygons(path: str, document: Any) -> Any:
    """The valid union of every Polygon and MultiPolygon in the document; other geometries are passed over."""
    polygons = [polygon(path, rings) for rings in rings_of(path, document)]
    if not polygons:
        raise UsageError(path, "it holds no polygon", REMEDY)
    merged = polygons_only(shapely.make_valid(np.array(polygons, dtype=object)))
    if merged.is_empty:
        raise UsageError(path, "none of its polygons has an area", REMEDY)
    return merged


def load(path: str) -> Any:
    try:
        size = Path(path).stat().st_size
        if size > LARGEST_BYTES:
            _refuse(path, f"its {size} bytes are more than the {LARGEST_BYTES} that are read")
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(path, f"it cannot be read ({error.strerror})", "check the path") from error
    except RecursionError as error:
        raise UsageError(path, "it is nested too deeply", REMEDY) from error
    except ValueError as error:
        raise UsageError(path, f"it is no JSON ({error})", REMEDY) from error


def rings_of(path: str, node: Any) -> Iterator[Any]:
    """Coordinates of every polygon below the node, however it is wrapped."""
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo.extend(reversed(item))
            continue
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            _refuse(path, "a part of it is neither a feature nor a geometry")
        kind = item["type"]
        if kind in CONTAINERS:
            todo.append(item.get(CONTAINERS[kind]) or [])
        elif kind == "Feature":
            todo.append(item.get("geometry") or [])
        elif kind in ("Polygon", "MultiPolygon"):
            rings = item.get("coordinates")
            yield from rings if kind == "MultiPolygon" and isinstance(rings, list) else [rings]


def polygon(path: str, rings: Any) -> Any:
    try:
        xy = [np.array(ring, dtype=np.float64)[:, :2] for ring in rings]
        # NaN compares false; beyond the limit even doubles are coarser than a pixel's fraction.
        if not all((np.abs(ring) < LARGEST_COORDINATE).all() for ring in xy):
            _refuse(path, f"a coordinate is not a finite number below {LARGEST_COORDINATE:g}")
        return shapely.Polygon(xy[0], xy[1:])
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise UsageError(path, f"a polygon has malformed coordinates ({error})", REMEDY) from error


def _refuse(path: str, cause: str) -> NoReturn:
    raise UsageError(path, cause, REMEDY)
