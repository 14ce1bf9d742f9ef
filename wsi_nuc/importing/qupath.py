"""QuPath's GeoJSON: cells, detections or annotations with their classification, in level-0 pixels.

A cell's `nucleusGeometry` is preferred to its outline. Tiles and cores of a tissue array are not cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import shapely

from wsi_nuc.datasets.jsonstream import objects
from wsi_nuc.datasets.readers.geojson import class_name
from wsi_nuc.errors import UsageError
from wsi_nuc.importing.record import Cells, Wanted, batches, head, polygon

NO_CELLS = ("tile", "tma_core", "root")


def recognises(path: Path) -> bool:
    start = head(path)
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") and b'"Feature' in start


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    return batches(_cells(path, wanted))


def _cells(path: Path, wanted: Wanted) -> Iterator[tuple[Any, str, float]]:
    for feature in objects(path, "features"):
        properties = feature.get("properties") or {}
        if not isinstance(properties, Mapping) or "geometry" not in feature:
            raise UsageError(
                path, "holds an object that is not a GeoJSON feature", "export objects from QuPath again"
            )
        if str(properties.get("objectType", "")).lower() in NO_CELLS:
            continue
        shape = feature.get("nucleusGeometry") or properties.get("nucleusGeometry") or feature["geometry"]
        name = class_name(feature, wanted.class_column or "classification")
        yield _geometry(shape), name, _probability(properties)


def _probability(properties: Mapping[str, Any]) -> float:
    measured = properties.get("measurements")
    value = measured.get("Detection probability") if isinstance(measured, Mapping) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else 1.0


def _geometry(shape: Any) -> Any:
    if not isinstance(shape, Mapping):
        return None
    kind, coordinates = shape.get("type"), shape.get("coordinates")
    if kind == "Polygon":
        return polygon(coordinates)
    if kind == "MultiPolygon" and isinstance(coordinates, list):
        parts = [part for rings in coordinates if (part := polygon(rings)) is not None]
        return shapely.MultiPolygon(parts) if parts else None
    return None
