"""The polygons as GeoParquet: valid by the standard, open to other tools, exact, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import duckdb
import geopandas
import jsonschema
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.build import CLASSES, core_boxes_l0, nuclei, write_nuclei
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.store import nuclei_columns as nuclei_module
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.geometry import crosses_core, polygons_wkb
from wsi_nuc.store.tissue import write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder

FILE = "shapes/nuclei/shapes.parquet"

# What GeoParquet 1.1.0 requires of the "geo" key, for the encodings that can occur here.
_CORNER = {"type": "array", "prefixItems": [{"const": "bbox"}, {"type": "string"}], "minItems": 2, "maxItems": 2}
_COLUMN = {
    "type": "object",
    "required": ["encoding", "geometry_types"],
    "properties": {
        "encoding": {
            "type": "string",
            "pattern": "^(WKB|point|linestring|polygon|multipoint|multilinestring|multipolygon)$",
        },
        "geometry_types": {
            "type": "array",
            "uniqueItems": True,
            "items": {
                "type": "string",
                "pattern": "^(GeometryCollection|(Multi)?(Point|LineString|Polygon))( Z)?$",
            },
        },
        "crs": {"oneOf": [{"type": "object"}, {"type": "null"}]},
        "edges": {"type": "string", "enum": ["planar", "spherical"]},
        "orientation": {"type": "string", "const": "counterclockwise"},
        "bbox": {
            "type": "array",
            "items": {"type": "number"},
            "oneOf": [{"minItems": 4, "maxItems": 4}, {"minItems": 6, "maxItems": 6}],
        },
        "epoch": {"type": "number"},
        "covering": {
            "type": "object",
            "required": ["bbox"],
            "properties": {
                "bbox": {
                    "type": "object",
                    "required": ["xmin", "xmax", "ymin", "ymax"],
                    "properties": dict.fromkeys(("xmin", "xmax", "ymin", "ymax"), _CORNER),
                }
            },
        },
    },
}
GEO_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["version", "primary_column", "columns"],
    "properties": {
        "version": {"const": "1.1.0"},
        "primary_column": {"type": "string", "minLength": 1},
        "columns": {"type": "object", "minProperties": 1, "patternProperties": {".+": _COLUMN}},
    },
}


def write(root: Path, *tables: NucleiTable) -> Path:
    write_nuclei(ZarrFolder(made_folder(root)), list(tables))
    return root / FILE


@pytest.mark.parametrize("count", [0, 1, 300])
def test_metadata_fulfils_geoparquet(tmp_path: Path, count: int) -> None:
    path = write(tmp_path, nuclei(count))
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    jsonschema.Draft202012Validator(GEO_SCHEMA).validate(geo)
    assert geo["columns"][geo["primary_column"]]["crs"] is None
    schema = pq.read_schema(path)
    covering = geo["columns"]["geometry"]["covering"]["bbox"]
    for column, corner in covering.values():
        assert schema.field(column).type.get_field_index(corner) >= 0
    assert ("bbox" in geo["columns"]["geometry"]) == (count > 0)


def test_geopandas_reads_the_rings_that_were_written(tmp_path: Path) -> None:
    table = nuclei(200)
    frame = geopandas.read_parquet(write(tmp_path, table))
    assert frame.index.name == "id"
    assert frame.index.tolist() == list(range(1, 201))
    assert frame.crs is None
    assert frame.is_valid.all()
    for row in (0, 57, 199):
        ring = table.xy[table.offsets[row] : table.offsets[row + 1]]
        assert np.array_equal(shapely.get_coordinates(frame.geometry.iloc[row])[:-1], ring)
    assert np.allclose(frame.area_um2, frame.area * 0.25**2)
    assert np.allclose(np.column_stack([frame.x, frame.y]), shapely.get_coordinates(frame.centroid))
    assert frame["class"].tolist() == [CLASSES[i] for i in table.class_id]
    assert np.array_equal(frame.predicted_iou.to_numpy(), table.predicted_iou, equal_nan=True)


def test_geopandas_filters_by_box(tmp_path: Path) -> None:
    path = write(tmp_path, nuclei(400))
    whole = geopandas.read_parquet(path)
    part = geopandas.read_parquet(path, bbox=(1000, 1000, 2000, 2000))
    assert 0 < len(part) < len(whole)
    assert (
        part.index.tolist() == whole[whole.intersects(shapely.box(1000, 1000, 2000, 2000).envelope)].index.tolist()
    )


def test_duckdb_and_pandas_read_it(tmp_path: Path) -> None:
    path = write(tmp_path, nuclei(300))
    counted = duckdb.sql(f"select class, count(*) from read_parquet('{path}') group by class").fetchall()
    frame = pd.read_parquet(path)
    assert dict(counted) == frame["class"].value_counts().to_dict()
    assert frame.predicted_iou.isna().sum() == 150


def test_unpredicted_iou_is_null_not_nan(tmp_path: Path) -> None:
    path = write(tmp_path, nuclei(10))
    assert pq.read_table(path).column("predicted_iou").null_count == 5


@pytest.mark.parametrize("count", [0, 1])
def test_few_nuclei_make_a_valid_file(tmp_path: Path, count: int) -> None:
    path = write(tmp_path, nuclei(count))
    assert len(geopandas.read_parquet(path)) == count
    assert duckdb.sql(f"select count(*) from read_parquet('{path}')").fetchall() == [(count,)]


def test_bytes_depend_on_the_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuclei_module, "ROW_GROUP_ROWS", 64)
    table = nuclei(300)
    cuts = [[0, 300], [0, 1, 64, 65, 250, 300], [0, 150, 150, 300]]
    hashes = set()
    for number, cut in enumerate(cuts):
        parts = [table.between(a, b) for a, b in pairwise(cut)]
        path = write(tmp_path / str(number), *parts)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
        assert [pq.ParquetFile(path).metadata.row_group(i).num_rows for i in range(5)] == [64, 64, 64, 64, 44]
    assert len(hashes) == 1


def test_seam_marks_nuclei_that_reach_over_their_core(tmp_path: Path) -> None:
    table = nuclei(300)
    frame = geopandas.read_parquet(write(tmp_path, table))
    boxes = shapely.box(*core_boxes_l0(table.tile).T)
    assert frame.seam.tolist() == (~shapely.covers(boxes, frame.geometry.to_numpy())).tolist()
    assert 0 < frame.seam.sum() < 300


@given(st.integers(0, 40), st.integers(0, 2**31), st.floats(0, 5e5))
@settings(deadline=None, max_examples=50)
def test_wkb_area_and_centre_agree_with_geos(count: int, seed: int, shift_px: float) -> None:
    table = nuclei(count, seed)
    rings = Rings(table.xy + shift_px, table.offsets)
    data, offsets = polygons_wkb(rings)
    polygons = shapely.from_wkb([data[a:b].tobytes() for a, b in pairwise(offsets)])
    area, centre = rings.areas_and_centres()
    assert len(polygons) == count
    assert np.allclose(area, shapely.area(polygons), rtol=1e-9)
    assert np.allclose(centre, shapely.get_coordinates(shapely.centroid(polygons)).reshape(-1, 2), atol=1e-5)


def test_ring_without_area_has_a_centre() -> None:
    line = np.array([[10.0, 10.0], [20.0, 10.0], [30.0, 10.0]])
    area, centre = Rings.of([line]).areas_and_centres()
    assert area.tolist() == [0.0]
    assert centre.tolist() == [[20.0, 10.0]]


def test_touching_the_core_edge_is_not_a_seam() -> None:
    core = np.array([[0.0, 0.0, 10.0, 10.0]] * 2)
    assert crosses_core(np.array([[0.0, 2.0, 10.0, 9.0], [3.0, 3.0, 10.5, 9.0]]), core).tolist() == [False, True]


def test_tissue_keeps_parts_and_holes(tmp_path: Path) -> None:
    donut = shapely.box(0, 0, 4000, 4000).difference(shapely.box(1000, 1000, 2000, 2000))
    area = shapely.MultiPolygon([donut, shapely.box(5000, 0, 6000, 500)])
    area_mm2 = write_tissue(ZarrFolder(made_folder(tmp_path)), area, mpp=0.5)
    frame = geopandas.read_parquet(tmp_path / "shapes/tissue/shapes.parquet")
    assert shapely.equals(frame.geometry.union_all(), area)
    assert area_mm2 == pytest.approx(area.area * 0.25e-6)
    assert frame.area_mm2.sum() == pytest.approx(area_mm2)


@pytest.mark.parametrize("area", [None, shapely.MultiPolygon(), shapely.Polygon()])
def test_no_tissue_is_an_empty_file(tmp_path: Path, area: object) -> None:
    assert write_tissue(ZarrFolder(made_folder(tmp_path)), area, mpp=0.5) == 0.0
    assert len(geopandas.read_parquet(tmp_path / "shapes/tissue/shapes.parquet")) == 0
