"""GeoPackage 1.2: a layer `nuclei` of polygons, with all columns of the table and an index of places.

Coordinates are pixels of level 0 from the corner of the first one, and y points down, as in the store. They have
no place on Earth, so the layer says that its reference system is undefined. `id` is the number of the nucleus.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.exporting.columns import FLAT, labels, pieces
from wsi_nuc.exporting.database import database, wkb_blobs
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.geoparquet import Extent
from wsi_nuc.store.nuclei_rows import NucleiRows
from wsi_nuc.store.reading import StoredRings

COLUMNS = FLAT
SUFFIX = ".gpkg"
KIND = "file"
LAYER = "nuclei"
_KINDS = {"O": "TEXT", "b": "BOOLEAN", "i": "INTEGER", "u": "INTEGER"}
# Undefined, with the axes of a plane.
_SYSTEM = -1
# "GP", version 0, little-endian with an envelope of x and y, then the reference system.
_HEAD = np.dtype([("magic", "S2"), ("version", "u1"), ("flags", "u1"), ("system", "<i4"), ("envelope", "<f8", 4)])
_BEFORE = """
PRAGMA application_id = 0x47504B47;
PRAGMA user_version = 10200;
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL,
    description TEXT);
INSERT INTO gpkg_spatial_ref_sys VALUES
    ('Undefined Cartesian SRS', -1, 'NONE', -1, 'undefined', 'undefined Cartesian coordinate reference system'),
    ('Undefined geographic SRS', 0, 'NONE', 0, 'undefined', 'undefined geographic coordinate reference system'),
    ('WGS 84 geodetic', 4326, 'EPSG', 4326, 'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,'
    || '298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,'
    || 'AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],'
    || 'AXIS["Latitude",NORTH],AXIS["Longitude",EAST],AUTHORITY["EPSG","4326"]]', 'longitude/latitude');
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
    min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
    CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
    geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
    CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name), CONSTRAINT uk_gc_table_name UNIQUE (table_name),
    CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
    CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE gpkg_extensions (table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL,
    definition TEXT NOT NULL, scope TEXT NOT NULL,
    CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name));
INSERT INTO gpkg_geometry_columns VALUES ('nuclei', 'geom', 'POLYGON', -1, 0, 0);
INSERT INTO gpkg_extensions VALUES ('nuclei', 'geom', 'gpkg_rtree_index',
    'http://www.geopackage.org/spec120/#extension_rtree', 'write-only');
CREATE VIRTUAL TABLE "rtree_nuclei_geom" USING rtree(id, minx, maxx, miny, maxy);
"""
# What keeps the index of places up to date when somebody edits the layer: the triggers of the standard.
_BOX = 'ST_MinX(NEW."geom"), ST_MaxX(NEW."geom"), ST_MinY(NEW."geom"), ST_MaxY(NEW."geom")'
_NEW, _NO_NEW = (
    '(NEW."geom" NOTNULL AND NOT ST_IsEmpty(NEW."geom"))',
    '(NEW."geom" ISNULL OR ST_IsEmpty(NEW."geom"))',
)
_ADD = f'INSERT OR REPLACE INTO "rtree_nuclei_geom" VALUES (NEW."id", {_BOX})'
_INDEX = "INSERT INTO rtree_nuclei_geom VALUES(?, ?, ?, ?, ?)"
_DROP = 'DELETE FROM "rtree_nuclei_geom" WHERE id = OLD."id"'
_TRIGGERS = {
    "insert": ("INSERT", _NEW, _ADD),
    "update1": ("UPDATE OF geom", f'OLD."id" = NEW."id" AND {_NEW}', _ADD),
    "update2": ("UPDATE OF geom", f'OLD."id" = NEW."id" AND {_NO_NEW}', _DROP),
    "update3": ("UPDATE", f'OLD."id" != NEW."id" AND {_NEW}', f"{_DROP}; {_ADD}"),
    "update4": ("UPDATE", f'OLD."id" != NEW."id" AND {_NO_NEW}', f'{_DROP} OR id = NEW."id"'),
    "delete": ("DELETE", 'OLD."geom" NOT NULL', _DROP),
}


def write_path(nuclei: Iterable[NucleiRows], about: About, path: Path) -> None:
    names, extent, insert = labels(about), Extent(), ""
    _refuse_twins(names.values())
    with database(path) as connection:
        for statement in _BEFORE.split(";\n"):
            connection.execute(statement)
        for rows in nuclei:
            insert = insert or _layer(connection, {label: rows.columns[name] for name, label in names.items()})
            for piece in pieces(rows):
                columns = [piece.columns[name].tolist() for name in names]
                ids, boxes = piece.rings.ids.tolist(), piece.rings.bounds_l0[:, [0, 2, 1, 3]].T.tolist()
                connection.executemany(insert, zip(ids, _blobs(piece.rings), *columns, strict=True))
                connection.executemany(_INDEX, zip(ids, *boxes, strict=True))
            extent.add(rows.rings.bounds_l0)
        for name, (event, when, then) in _TRIGGERS.items():
            trigger = f'"rtree_nuclei_geom_{name}" AFTER {event} ON "nuclei" WHEN {when} BEGIN {then}; END'
            connection.execute(f"CREATE TRIGGER {trigger}")
        slide = about.slide.get("file", "a slide")
        description = f"nuclei of {slide} in pixels of level 0, {about.mpp:g} um each; y down"
        # The same nuclei give the same bytes, so the time of the last change is not now.
        facts = (LAYER, "features", LAYER, description, "1970-01-01T00:00:00.000Z")
        box = extent.box or (None, None, None, None)
        connection.execute(
            "INSERT INTO gpkg_contents VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*facts, *box, _SYSTEM)
        )


def _layer(connection: sqlite3.Connection, columns: dict[str, Any]) -> str:
    """Make the table; returns the statement that inserts a row."""
    kinds = [
        f"{_quoted(name)} {_KINDS.get(values.dtype.kind, 'FLOAT' if values.dtype.itemsize == 4 else 'REAL')}"
        for name, values in columns.items()
    ]
    connection.execute(
        f'CREATE TABLE "nuclei" ("id" INTEGER PRIMARY KEY NOT NULL, "geom" POLYGON, {", ".join(kinds)})'
    )
    return f"INSERT INTO nuclei VALUES({', '.join('?' * (len(kinds) + 2))})"


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _refuse_twins(names: Iterable[str]) -> None:
    counts = Counter(name.lower() for name in ("id", "geom", *names))
    twin = next((name for name, count in counts.items() if count > 1), None)
    if twin is not None:
        remedy = "leave one of them out with --columns, or use another format"
        raise UsageError("--to gpkg", f"two columns are called {twin!r}, apart from capital letters", remedy)


def _blobs(rings: StoredRings) -> list[bytes]:
    heads = np.zeros(len(rings), _HEAD)
    heads["magic"], heads["flags"], heads["system"] = b"GP", 3, _SYSTEM
    heads["envelope"] = rings.bounds_l0[:, [0, 2, 1, 3]]
    return [
        head + wkb for head, wkb in zip(heads.view(f"V{_HEAD.itemsize}").tolist(), wkb_blobs(rings), strict=True)
    ]
