"""QuPath GeoJSON beside an image of the same name: annotations, detections or cells, with their classification.

A cell's `nucleusGeometry` is preferred to its outline. Coordinates are in pixels of the image, whose corners are
whole numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.files import by_stem, read_json, read_rgb
from wsi_nuc.datasets.labels import Outline, class_index, inside, labels_of_polygons
from wsi_nuc.datasets.record import DataError, Entry, LabelledImage


def recognises(root: Path) -> bool:
    return any(root.glob("**/*.geojson"))


def entries(root: Path, card: Card) -> list[Entry]:
    paths = sorted(root.glob("**/*.geojson"))
    if not card.classes:
        names = {class_name(feature) for path in paths for feature in features(path)}
        card = replace(card, classes=tuple(sorted(names - {""})))
    listed = []
    for path in paths:
        folders = [path.parent, path.parent.parent / "images"]
        image = next((files[path.stem] for files in map(by_stem, folders) if path.stem in files), None)
        if image is None:
            raise DataError(path, "has no image of the same name", "put the image beside it")
        listed.append(Entry(path.stem, partial(load, path, image, card), path.stem))
    return listed


def load(path: Path, image: Path, card: Card) -> LabelledImage:
    repairs: Counter[str] = Counter()
    rgb = read_rgb(image, repairs)
    outlines: list[Outline] = []
    points: list[Sequence[float]] = []
    kinds: dict[str, list[int]] = {"outline": [], "point": []}
    for feature in features(path):
        shape = feature.get("nucleusGeometry") or feature.get("geometry") or {}
        kind = class_index(class_name(feature), card.classes, path)
        rings, dots = _shapes(shape, path)
        outlines += rings
        points += dots
        kinds["outline"] += [kind] * len(rings)
        kinds["point"] += [kind] * len(dots)
    if not outlines and not points:
        repairs["images without an object"] += 1
    labels, types = labels_of_polygons(outlines, np.array(kinds["outline"], np.int64), rgb, path, repairs)
    xy, point_types = inside(
        np.array(points, float).reshape(-1, 2), np.array(kinds["point"], np.int64), rgb, repairs
    )
    only_points = bool(points) and not outlines
    return LabelledImage(
        path.stem,
        rgb,
        None if only_points else labels,
        None if only_points else types,
        xy if points else None,
        point_types if points else None,
        mpp=card.mpp,
        classes=card.classes,
        point_classes=card.classes,
        source=card.name,
        repairs=repairs,
    )


def features(path: Path) -> list[dict[str, Any]]:
    """The features of a collection or of a plain list (QuPath writes both), or a single feature."""
    listed = read_json(path)
    if isinstance(listed, dict):
        listed = listed.get("features", [listed])
    if not isinstance(listed, list) or not all(isinstance(item, dict) and "geometry" in item for item in listed):
        raise DataError(path, "is not a GeoJSON feature collection", "export objects from QuPath as GeoJSON")
    return listed


def class_name(feature: Mapping[str, Any], column: str = "classification") -> str:
    """The class of a feature of QuPath, "" if there is none.

    Older files hold it as plain text, and derived classifications are a list of names. `column`: the property that
    holds it.
    """
    properties = feature.get("properties")
    value = (properties.get(column) if isinstance(properties, Mapping) else None) or ""
    if isinstance(value, Mapping):
        value = value.get("name") or ": ".join(map(str, value.get("names") or []))
    return str(value)


def _shapes(shape: dict[str, Any], path: Path) -> tuple[list[Outline], list[Sequence[float]]]:
    """Outlines (each with its holes) and points of a geometry."""
    kind, coordinates = shape.get("type"), shape.get("coordinates") or []
    try:
        if kind == "Point":
            return [], [[float(v) for v in coordinates[:2]]]
        if kind == "MultiPoint":
            return [], [[float(v) for v in xy[:2]] for xy in coordinates]
        if kind == "Polygon":
            return [_rings(coordinates)], []
        if kind == "MultiPolygon":
            # The parts of an object are one nucleus; even-odd filling takes all rings at once.
            return [[ring for part in coordinates for ring in _rings(part)]], []
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(path, f"has a {kind} that cannot be read ({error})", "export it again") from error
    raise DataError(path, f"has a geometry of type {kind}", "keep polygons and points only")


def _rings(coordinates: Sequence[Any]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    return [np.array([[float(v) for v in xy[:2]] for xy in ring]).reshape(-1, 2) for ring in coordinates]
