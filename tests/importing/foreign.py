"""Writers of cells in the documented layouts of other programs."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from shapely.geometry import mapping

Named = Sequence[tuple[Any, str]]


def qupath(path: Path, cells: Named, plain_list: bool = False) -> Path:
    features = [
        {
            "type": "Feature",
            "id": f"00000000-0000-0000-0000-{i:012}",
            "geometry": mapping(shapely.box(*shape.bounds)),
            "nucleusGeometry": mapping(shape),
            "properties": {"objectType": "cell", "classification": {"name": name, "color": [1, 2, 3]}},
        }
        for i, (shape, name) in enumerate(cells)
    ]
    document: Any = features if plain_list else {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(document))
    return path


def qupath_packed(path: Path, cells: Named) -> Path:
    path.write_bytes(gzip.compress(qupath(path.with_suffix(".plain"), cells, plain_list=True).read_bytes()))
    return path


def cellvit(path: Path, cells: Named, map_first: bool = True) -> Path:
    names = sorted({name for _, name in cells})
    listed = [
        {
            "bbox": [[shape.bounds[1], shape.bounds[0]], [shape.bounds[3], shape.bounds[2]]],
            "centroid": list(shape.centroid.coords[0]),
            "contour": [list(xy) for xy in shape.exterior.coords[:-1]],
            "type_prob": 0.75,
            "type": names.index(name) + 1,
            "patch_coordinates": [0, 0],
        }
        for shape, name in cells
    ]
    type_map = {"type_map": {str(i + 1): name for i, name in enumerate(names)}}
    head = {"wsi_metadata": {"base_mpp": 0.25}, "processed_patches": ["0_0"] * 300}
    document = head | (type_map | {"cells": listed} if map_first else {"cells": listed} | type_map)
    path.write_text(json.dumps(document, indent=1))
    return path


def cellvit_map_last(path: Path, cells: Named) -> Path:
    return cellvit(path, cells, map_first=False)


def hovernet(path: Path, cells: Named, named: bool = True) -> Path:
    names = sorted({name for _, name in cells})
    nuclei = {
        str(i): {
            "bbox": [[shape.bounds[1], shape.bounds[0]], [shape.bounds[3], shape.bounds[2]]],
            "centroid": list(shape.centroid.coords[0]),
            "contour": [list(xy) for xy in shape.exterior.coords[:-1]],
            "type_prob": 0.75,
            "type": names.index(name) + 1,
        }
        for i, (shape, name) in enumerate(cells, 1)
    }
    type_map = {"type_map": {str(i + 1): name for i, name in enumerate(names)}} if named else {}
    path.write_text(json.dumps({"mag": 40, "nuc": nuclei} | type_map))
    return path


def tiatoolbox(path: Path, cells: Named, packed: bool = True) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE annotations(id INTEGER PRIMARY KEY, key TEXT UNIQUE, objtype INTEGER, "
            "cx INTEGER NOT NULL, cy INTEGER NOT NULL, geometry BLOB, properties TEXT, area INTEGER NOT NULL)"
        )
        connection.execute("CREATE TABLE metadata(key TEXT UNIQUE, value TEXT)")
        connection.execute("INSERT INTO metadata VALUES ('compression', ?)", ('"zlib"' if packed else "null",))
        for i, (shape, name) in enumerate(cells):
            wkb = zlib.compress(shape.wkb, 9) if packed else shape.wkb
            row = (
                i,
                f"key-{i}",
                3,
                *shape.centroid.coords[0],
                wkb,
                json.dumps({"type": name, "prob": 0.5}),
                shape.area,
            )
            connection.execute("INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()
    return path


def tiatoolbox_plain(path: Path, cells: Named) -> Path:
    return tiatoolbox(path, cells, packed=False)


def spatialdata(path: Path, cells: Named, l0_per_px: float = 1.0) -> Path:
    """Written by the library itself. `l0_per_px` is the transformation that it stores."""
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Scale

    shapes = [shapely.transform(shape, lambda xy: xy / l0_per_px) for shape, _ in cells]
    frame = geopandas.GeoDataFrame({"cell_type": [name for _, name in cells]}, geometry=shapes)
    element = ShapesModel.parse(frame, transformations={"global": Scale([l0_per_px] * 2, axes=("x", "y"))})
    SpatialData(shapes={"cells": element}).write(path)
    return path


def spatialdata_scaled(path: Path, cells: Named) -> Path:
    return spatialdata(path, cells, l0_per_px=2.0)


def geoparquet(path: Path, cells: Named) -> Path:
    frame = geopandas.GeoDataFrame({"class": [name for _, name in cells]}, geometry=[shape for shape, _ in cells])
    frame.to_parquet(path)
    return path


WRITERS = {
    "qupath": (qupath, "cells.geojson"),
    "qupath, packed list": (qupath_packed, "cells.geojson.gz"),
    "cellvit": (cellvit, "cells.json"),
    "cellvit, map last": (cellvit_map_last, "cells.json"),
    "hovernet": (hovernet, "cells.json"),
    "tiatoolbox": (tiatoolbox, "store.db"),
    "tiatoolbox, unpacked": (tiatoolbox_plain, "store.db"),
    "spatialdata": (spatialdata, "cells.zarr"),
    "spatialdata, scaled": (spatialdata_scaled, "cells.zarr"),
    "geoparquet": (geoparquet, "cells.parquet"),
}


def lattice(count: int, pitch: float = 16.0, across: int = 40) -> Named:
    """Octagons of radius 5 on a lattice; corners on 1/64 px, as they are kept."""
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.round(5 * np.stack([np.cos(turn), np.sin(turn)], axis=1) * 64) / 64
    names = ("lymphocyte", "tumour", "stroma")
    return [
        (shapely.Polygon(ring + np.array([i % across, i // across]) * pitch + 10), names[i % 3])
        for i in range(count)
    ]
