"""Shapes of a SpatialData zarr: polygons, or circles with a radius, in the global coordinates of the zarr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.errors import UsageError
from wsi_nuc.importing.record import BATCH_CELLS, Cells, Wanted
from wsi_nuc.safezarr import attributes
from wsi_nuc.types import Float64

PARQUET = "shapes.parquet"
CLASS_COLUMNS = ("class", "cell_type", "celltype", "classification", "type", "label", "annotation")
SCORE_COLUMNS = ("score", "probability")
USUAL_ELEMENTS = ("nuclei", "cells", "cell_boundaries", "nucleus_boundaries", "cell_circles")
GLOBAL = "global"
REMEDY = "give a zarr that SpatialData wrote, with shapes"


def recognises(path: Path) -> bool:
    return (path / "shapes").is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    element = _element(path, wanted.element)
    matrix = _to_global(path, _attributes(element))
    try:
        with pq.ParquetFile(element / PARQUET) as file:
            geometry, column = _columns(path, file.schema_arrow, wanted.class_column)
            score = next((name for name in SCORE_COLUMNS if name in file.schema_arrow.names), None)
            wished = (geometry, column, score, "radius")
            names = [name for name in wished if name and name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_CELLS, columns=names):
                yield _cells(batch, (geometry, column, score), matrix)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(element / PARQUET, f"cannot be read as Parquet ({error})", REMEDY) from error


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


def _columns(path: Path, schema: Any, wanted: str) -> tuple[str, str | None]:
    geo = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
    geometry = str(geo.get("primary_column", "geometry"))
    if geometry not in schema.names:
        raise UsageError(path, f"its shapes have no column {geometry!r}", REMEDY)
    if wanted and wanted not in schema.names:
        listed = ", ".join(name for name in schema.names if name != geometry)
        raise UsageError(f"--class-column {wanted}", "there is no such column", f"there are {listed or 'none'}")
    return geometry, wanted or next((name for name in CLASS_COLUMNS if name in schema.names), None)


def _cells(batch: Any, columns: tuple[str, str | None, str | None], matrix: Float64) -> Cells:
    geometry, name, score = columns
    shapes = shapely.from_wkb(batch.column(geometry).to_pylist(), on_invalid="ignore")
    if "radius" in batch.schema.names:
        points = shapely.get_type_id(shapes) == shapely.GeometryType.POINT
        radius = np.array(batch.column("radius").to_pylist(), np.float64)
        shapes[points] = shapely.buffer(shapes[points], radius[points], quad_segs=8)
    if not np.array_equal(matrix, np.eye(3)):
        shapes = shapely.transform(shapes, lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2])
    names = [_text(value) for value in batch.column(name).to_pylist()] if name else [""] * len(shapes)
    scores = (
        [1.0 if value is None else float(value) for value in batch.column(score).to_pylist()] if score else None
    )
    return Cells(list(shapes), names, scores or [1.0] * len(shapes))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"type {value}" if isinstance(value, int | float) else str(value)
