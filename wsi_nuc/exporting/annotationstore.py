"""TIAToolbox's AnnotationStore (SQLite, version 1.0.1): one annotation per nucleus, its outline as plain WKB.

Coordinates are pixels of level 0 (TIAToolbox: "baseline") from the corner of the first one, so they are written as
they are. The properties are `type`, which is the class, `prob`, which is the score, and all other columns under
their names with the unit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from wsi_nuc.exporting.columns import classes, keys, labels, members, pieces
from wsi_nuc.exporting.database import database, wkb_blobs
from wsi_nuc.exporting.registry import MEASURED, About
from wsi_nuc.store.nuclei_rows import NucleiRows

COLUMNS = ("score", "prompt_score", "predicted_iou", "area_um2", MEASURED, "class", "class_id", "x", "y")
SUFFIX = ".db"
KIND = "file"
# TIAToolbox compresses WKB by default. That takes longer than all the rest.
METADATA = {"version": "1.0.1", "compression": None, "compression_level": 0}
_TABLES = (
    "CREATE TABLE metadata (key TEXT UNIQUE, value TEXT)",
    "CREATE VIRTUAL TABLE rtree USING rtree(id, min_x, max_x, min_y, max_y)",
    "CREATE TABLE annotations(id INTEGER PRIMARY KEY, key TEXT UNIQUE, objtype TEXT, cx FLOAT NOT NULL, "
    "cy FLOAT NOT NULL, geometry BLOB, properties TEXT, area FLOAT NOT NULL)",
)


def write_path(nuclei: Iterable[NucleiRows], about: About, path: Path) -> None:
    with database(path) as connection:
        for table in _TABLES:
            connection.execute(table)
        metadata = [(key, json.dumps(value)) for key, value in METADATA.items()]
        connection.executemany("INSERT INTO metadata VALUES(?, ?)", metadata)
        first = 1
        for rows in chain.from_iterable(map(pieces, nuclei)):
            numbers = range(first, first + len(rows))
            annotations = zip(
                numbers,
                keys(rows, about).to_pylist(),
                rows.columns["x"].tolist(),
                rows.columns["y"].tolist(),
                wkb_blobs(rows.rings),
                _properties(rows, about),
                rows.rings.areas_and_centres()[0].tolist(),
                strict=True,
            )
            connection.executemany("INSERT INTO annotations VALUES(?, ?, 'Polygon', ?, ?, ?, ?, ?)", annotations)
            boxes = rows.rings.bounds_l0[:, [0, 2, 1, 3]].T.tolist()
            connection.executemany("INSERT INTO rtree VALUES(?, ?, ?, ?, ?)", zip(numbers, *boxes, strict=True))
            first += len(rows)


def _properties(rows: NucleiRows, about: About) -> list[str]:
    import pyarrow.compute as pc

    named = {
        "prob" if name == "score" else label: rows.columns[name]
        for name, label in labels(about).items()
        if name not in ("class", "class_id", "x", "y")
    }
    types = classes(rows, map(json.dumps, about.classes))
    texts: list[str] = pc.binary_join_element_wise('{"type":', types, ",", *members(named), "}", "").to_pylist()
    return texts
