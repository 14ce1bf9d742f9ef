"""Dots on a drawn slide, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely

from wsi_nuc.synth import SynthTruth

Geometry = dict[str, Any]


def truth_of(truth: SynthTruth) -> tuple[Any, list[str]]:
    """The outlines of a drawn slide, in level-0 pixels, and their classes."""
    table = pq.read_table(truth.truth)
    return shapely.from_wkb(table["geometry"].to_pylist()), table["class"].to_pylist()


def centres(polygons: Any) -> Any:
    """N x 2: a point inside of each."""
    return shapely.get_coordinates(shapely.point_on_surface(polygons))


def feature(geometry: Geometry, classification: Any = None, **properties: Any) -> Geometry:
    own = {"objectType": "annotation", **properties}
    if classification is not None:
        own["classification"] = classification
    return {"type": "Feature", "id": "b3c1", "geometry": geometry, "properties": own}


def point(xy: Sequence[float], name: str = "") -> Geometry:
    geometry = {"type": "Point", "coordinates": list(xy)}
    return feature(geometry, {"name": name, "color": [1, 2, 3]} if name else None)


def multi_points(xy: Any, names: Sequence[str]) -> list[Geometry]:
    """One MultiPoint per class, in the order of the classes."""
    return [
        feature({"type": "MultiPoint", "coordinates": np.asarray(xy)[[n == name for n in names]].tolist()}, name)
        for name in sorted(set(names))
    ]


def box(x0: float, y0: float, x1: float, y1: float, **properties: Any) -> Geometry:
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return feature({"type": "Polygon", "coordinates": [ring]}, **properties)


def write_geojson(path: Path, features: Iterable[Geometry]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def write_csv(path: Path, xy: Any, names: Sequence[str] = ()) -> Path:
    header = "x,y,class" if names else "x,y"
    rows = [
        ",".join([*(repr(float(v)) for v in place), *([names[i]] if names else [])])
        for i, place in enumerate(np.asarray(xy).tolist())
    ]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path
