"""Shapes of a SpatialData zarr, also of a packed store: polygons, or circles with a radius, in its global
coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.importing.geoparquet import of_parquet
from wsi_nuc.importing.record import Cells, Wanted
from wsi_nuc.safezarr import attributes
from wsi_nuc.safezip import Folder, contents, is_packed, names_in
from wsi_nuc.types import Float64

PARQUET = "shapes.parquet"
USUAL_ELEMENTS = ("nuclei", "cells", "cell_boundaries", "nucleus_boundaries", "cell_circles")
GLOBAL = "global"
REMEDY = "give a zarr that SpatialData wrote, with shapes"


def recognises(path: Path) -> bool:
    if not (path.is_dir() or is_packed(path)):
        return False
    names = names_in(contents(path))
    return "shapes" in names and not {"zarr.json", ".zgroup"}.isdisjoint(names)


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    element = _element(contents(path), wanted.element)
    yield from of_parquet(element / PARQUET, wanted.class_column, _to_global(path, _attributes(element)))


def _element(path: Folder, wanted: str) -> Folder:
    shapes = path / "shapes"
    names = [name for name in names_in(shapes) if (shapes / name / PARQUET).is_file()]
    if wanted and wanted not in names:
        raise UsageError(
            f"--element {wanted}", f"{path} has no such shapes", f"it has {', '.join(names) or 'none'}"
        )
    usual = [name for name in USUAL_ELEMENTS if name in names]
    chosen = wanted or (usual or names if len(usual) == 1 or len(names) == 1 else [""])[0]
    if not names:
        raise UsageError(path, "it has no shapes", REMEDY)
    if not chosen:
        raise UsageError(path, f"it has several shapes: {', '.join(names)}", "choose one with --element")
    return shapes / chosen


def _attributes(element: Folder) -> dict[str, Any]:
    try:
        return attributes(element)
    except (OSError, ValueError) as error:
        raise UsageError(element, f"cannot be read ({error})", REMEDY) from error


def _to_global(path: Path, attributes: Mapping[str, Any]) -> Float64:
    """3 x 3: from coordinates of the element (x, y, 1) to global ones."""
    listed = attributes.get("coordinateTransformations") or [{"type": "identity"}]
    named = [entry for entry in listed if (entry.get("output") or {}).get("name") == GLOBAL]
    try:
        return _matrix((named or listed)[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            path, f"its transformation is not understood ({error})", "transform the shapes first"
        ) from error


def _matrix(transformation: Mapping[str, Any]) -> Float64:
    kind, out = transformation["type"], np.eye(3)
    if kind == "sequence":
        for step in transformation["transformations"]:
            out = _matrix(step) @ out
    elif kind == "scale":
        out[[0, 1], [0, 1]] = transformation["scale"][-2:]
    elif kind == "translation":
        out[:2, 2] = transformation["translation"][-2:]
    elif kind == "affine":
        out[:2] = np.asarray(transformation["affine"], np.float64)[:2]
    elif kind != "identity":
        raise ValueError(f"{kind} is not identity, scale, translation, affine or sequence")
    return out
