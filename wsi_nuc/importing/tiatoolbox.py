"""TIAToolbox's AnnotationStore: SQLite with WKB, compressed by zlib or not, and properties as JSON."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import shapely

from wsi_nuc.errors import UsageError
from wsi_nuc.importing.record import Cells, Wanted, batches, head

MAGIC = b"SQLite format 3\0"
CLASS_KEYS = ("type", "class", "label", "classification")
SCORE_KEYS = ("prob", "type_prob", "score")
LARGEST_WKB = 64 << 20


def recognises(path: Path) -> bool:
    return head(path, 16) == MAGIC


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    return batches(_cells(path, wanted))


def _cells(path: Path, wanted: Wanted) -> Iterator[tuple[Any, str, float]]:
    # Immutable, so that a store on a read-only disk opens, and no other file appears beside it.
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            for blob, text in connection.execute("SELECT geometry, properties FROM annotations ORDER BY id"):
                properties = json.loads(text) if text else {}
                if not isinstance(properties, Mapping):
                    properties = {}
                yield _geometry(blob), _name(properties, wanted.class_column), _score(properties)
    except (sqlite3.Error, json.JSONDecodeError) as error:
        raise UsageError(
            path, f"is not an AnnotationStore of TIAToolbox ({error})", "give the .db file that TIAToolbox wrote"
        ) from error


def _geometry(blob: Any) -> Any:
    """The geometry; None for points, which have no blob, and for damaged data."""
    if not isinstance(blob, bytes):
        return None
    try:
        # WKB begins with its byte order, 0 or 1; zlib never does.
        plain = blob if blob[:1] in (b"\0", b"\1") else zlib.decompressobj().decompress(blob, LARGEST_WKB)
        return shapely.from_wkb(plain)
    except (zlib.error, shapely.errors.ShapelyError):
        return None


def _name(properties: Mapping[str, Any], column: str) -> str:
    for key in (column,) if column else CLASS_KEYS:
        value = properties.get(key)
        if value is not None:
            return f"type {value}" if isinstance(value, int | float) else str(value)
    return ""


def _score(properties: Mapping[str, Any]) -> float:
    for key in SCORE_KEYS:
        value = properties.get(key)
        if isinstance(value, int | float) and 0 <= value <= 1:
            return float(value)
    return 1.0
