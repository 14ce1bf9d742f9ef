"""GeoParquet: polygons, or points with a radius, in pixels of the slide, such as the truth of `wsi-nuc synth`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.errors import UsageError
from wsi_nuc.importing.record import BATCH_CELLS, Cells, Wanted
from wsi_nuc.safezip import Folder, for_arrow
from wsi_nuc.types import Float64

MAGIC = b"PAR1"
CLASS_COLUMNS = ("class", "cell_type", "celltype", "classification", "type", "label", "annotation")
SCORE_COLUMNS = ("score", "probability")
REMEDY = "give GeoParquet with a column of polygons as WKB"


def recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    yield from of_parquet(path, wanted.class_column, np.eye(3))


def of_parquet(file: Folder, class_column: str, matrix: Float64) -> Iterator[Cells]:
    """`matrix`: 3 x 3, from coordinates of the file (x, y, 1) to level-0 pixels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(for_arrow(file)) as opened:
            facts, schema = opened.metadata.metadata or {}, opened.schema_arrow
            geometry, column = _columns(file, facts, schema, class_column)
            score = next((name for name in SCORE_COLUMNS if name in schema.names), None)
            names = [name for name in (geometry, column, score, "radius") if name and name in schema.names]
            for batch in opened.iter_batches(BATCH_CELLS, columns=names):
                yield _cells(batch, (geometry, column, score), matrix)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(file, f"cannot be read as GeoParquet ({error})", REMEDY) from error


def _columns(file: Folder, facts: Mapping[bytes, bytes], schema: Any, wanted: str) -> tuple[str, str | None]:
    geo = json.loads(facts.get(b"geo", b"{}"))
    geometry = str(geo.get("primary_column", "geometry"))
    if geometry not in schema.names:
        raise UsageError(file, f"it has no column {geometry!r}", REMEDY)
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
