"""Shapes of a SpatialData zarr: polygons, or circles with a radius, in the global coordinates of the zarr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.importing.geoparquet import of_parquet
from wsi_nuc.importing.record import Cells, Wanted
from wsi_nuc.safezarr import attributes
from wsi_nuc.types import Float64

PARQUET = "shapes.parquet"
USUAL_ELEMENTS = ("nuclei", "cells", "cell_boundaries", "nucleus_boundaries", "cell_circles")
GLOBAL = "global"
REMEDY = "give a zarr that SpatialData wrote, with shapes"


def recognises(path: Path) -> bool:
    return (path / "shapes").is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    element = _element(path, wanted.element)
    yield from of_parquet(element / PARQUET, wanted.class_column, _to_global(path, _attributes(element)))


def _element(path: Path, wanted: str) -> Path:
    names = sorted(file.parent.name for file in path.glob(f"shapes/*/{PARQUET}"))
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
    return path / "shapes" / chosen


def _attributes(element: Path) -> dict[str, Any]:
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
