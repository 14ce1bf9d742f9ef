"""Reads dots from a file: QuPath's GeoJSON, CSV, or a result of this program."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.datasets.files import read_rows, xy_of_rows
from wsi_nuc.datasets.jsonstream import objects
from wsi_nuc.datasets.readers.geojson import class_name
from wsi_nuc.datasets.record import DataError
from wsi_nuc.safezip import is_packed
from wsi_nuc.store.manifest import is_ours
from wsi_nuc.store.reading import NucleiFile, class_names
from wsi_nuc.tissue.geojson import parse_polygons
from wsi_nuc.training.dots.record import Dots

DOTS_SUFFIXES = (".geojson", ".json", ".csv")
REMEDY = "give the GeoJSON of dots that QuPath exports, a CSV file with x,y,class, or a result of wsi-nuc"
# QuPath's own class for parts that an annotation shall leave out.
IGNORED = "Ignore*"
# Kinds of objects whose outline is not a drawn region, as the file calls them: "cell", or "PathCellObject" before.
_NO_REGION = ("cell", "detection", "tile", "tma", "root")


def read_dots(path: Path) -> Dots:
    """All dots of a file. Those without usable coordinates are dropped and counted."""
    if not path.exists():
        raise DataError(path, "does not exist", REMEDY)
    if is_packed(path) or path.is_dir():
        return _of_store(path)
    if path.suffix.lower() == ".csv":
        (dots,) = read_csv(path).values()
        return dots
    if _start(path)[:1] in (b"{", b"["):
        return _of_geojson(path)
    raise DataError(path, "holds no dots of a known kind", REMEDY)


def read_csv(path: Path, by: str = "") -> dict[str, Dots]:
    """Dots of a table with x, y and, optionally, class. `by`: the column with the name of the image."""
    rows = read_rows(path, ["x", "y", *([by] if by else [])])
    xy = xy_of_rows(rows, path)
    of_image: dict[str, list[int]] = {} if by else {"": list(range(len(rows)))}
    for i, row in enumerate(rows if by else []):
        of_image.setdefault(row[by] or "", []).append(i)
    return {
        name: Dots.of(xy[chosen], [(rows[i].get("class") or "").strip() for i in chosen]).finite()
        for name, chosen in of_image.items()
    }


def _start(path: Path) -> bytes:
    with suppress(OSError, EOFError), path.open("rb") as file:
        start = file.read(4096)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                start = unpacked.read(4096)
        return start.lstrip(b"\xef\xbb\xbf \t\r\n")
    raise DataError(path, "cannot be read", "copy the file again")


def _of_store(path: Path) -> Dots:
    if not is_ours(path):
        raise DataError(path, "is not a result of wsi-nuc", REMEDY)
    classes = class_names(path)
    with NucleiFile(path) as file:
        groups = [file.points(group) for group in range(file.groups)]
    xy = np.concatenate([np.zeros((0, 2)), *(points.xy_l0 for points in groups)])
    kinds = np.concatenate([np.zeros(0, np.int64), *(points.class_id for points in groups)])
    return Dots(xy, kinds, classes).finite()


def _of_geojson(path: Path) -> Dots:
    repairs: Counter[str] = Counter()
    xy: list[list[float]] = []
    names: list[str] = []
    drawn: dict[bool, list[Any]] = {False: [], True: []}
    for feature in objects(path, "features"):
        shape, properties = feature.get("geometry"), feature.get("properties")
        if not isinstance(shape, Mapping) or not isinstance(properties, Mapping | None):
            raise DataError(path, "holds an object that is not a GeoJSON feature", REMEDY)
        kind, name = shape.get("type"), class_name(feature)
        if kind in ("Point", "MultiPoint"):
            points = shape.get("coordinates") if kind == "MultiPoint" else [shape.get("coordinates")]
            before = len(xy)
            xy += map(_xy, points if isinstance(points, list) else [None])
            names += [name] * (len(xy) - before)
        elif kind not in ("Polygon", "MultiPolygon"):
            repairs[f"objects of type {kind} (ignored)"] += 1
        elif _is_region(feature, properties or {}):
            drawn[name == IGNORED].append(shape)
        else:
            repairs["outlines of cells, which are not dots (ignored)"] += 1
    region = parse_polygons(str(path), drawn[False]) if drawn[False] else None
    if region is not None and drawn[True]:
        region = region.difference(parse_polygons(str(path), drawn[True]))
    return Dots.of(np.array(xy, np.float64), names, region, repairs).finite()


def _is_region(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    """Whether a polygon is drawn around an area. Before QuPath 0.3 the kind of an object stood in its `id`."""
    kind = str(properties.get("objectType") or feature.get("id") or "").lower()
    is_cell = feature.get("nucleusGeometry") or properties.get("nucleusGeometry")
    return not is_cell and not any(word in kind for word in _NO_REGION)


def _xy(coordinates: Any) -> list[float]:
    """Two numbers; NaN for what is not one."""
    try:
        x, y = coordinates[:2]
        return [float(x), float(y)]
    except (TypeError, ValueError, OverflowError):
        return [np.nan, np.nan]


def dots_files(folder: Path) -> Iterator[Path]:
    """The files of dots in a folder."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in DOTS_SUFFIXES and path.name != "dataset.json" and not path.name.startswith("."):
            yield path
