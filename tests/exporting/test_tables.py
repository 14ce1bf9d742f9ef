"""CSV, Parquet and GeoPackage: every column of the store under a name with its unit, row by row."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import shapely

from tests.exporting.build import CLASS_NAMES, RINGS, known_nuclei, known_store
from tests.features.build import MPP, publish_nuclei
from wsi_nuc.errors import UsageError
from wsi_nuc.exporting.columns import with_unit
from wsi_nuc.exporting.export import Choice, export

READ: dict[str, Callable[[Path], pandas.DataFrame]] = {
    "csv": partial(pandas.read_csv, float_precision="round_trip"),
    "parquet": pandas.read_parquet,
    "gpkg": lambda path: geopandas.read_file(path, fid_as_index=True).reset_index().rename(columns={"fid": "id"}),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return known_store(tmp_path_factory.mktemp("known"))


@pytest.mark.parametrize("format", READ)
def test_a_row_per_nucleus_has_all_values_under_names_with_units(format: str, store: Path, tmp_path: Path) -> None:
    export(store, format, tmp_path / f"cells.{format}")
    table = READ[format](tmp_path / f"cells.{format}")
    polygons = [shapely.Polygon(ring) for ring in RINGS]
    assert table["id"].tolist() == [1, 2, 3]
    assert table["class"].tolist() == list(CLASS_NAMES)
    assert table["class_id"].tolist() == [1, 0, 2]
    assert table["seam"].astype(bool).tolist() == [False, True, False]
    centres = np.array([(polygon.centroid.x, polygon.centroid.y) for polygon in polygons])
    np.testing.assert_allclose(table[["x_px", "y_px"]], centres, rtol=1e-12)
    np.testing.assert_allclose(table.area_um2, [polygon.area * MPP**2 for polygon in polygons], rtol=1e-12)
    expected = {
        "score": [0.9, 0.5, 1 / 3],
        "predicted_iou": [np.nan, 0.5, 0.25],
        "probability_stroma": [0.8, 0.1, 0.1],
        "h_mean_od": [0.1, np.nan, 0.3],
        "gradient_sd_od_per_um": [1e-7, 2e12, np.inf],
        "perimeter_um": [3.5, 10, 30],
        "solidity": [1, 0.5, 0.25],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(table[name].to_numpy(np.float32), np.float32(values), name)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_flat_table_has_places_in_um_too(format: str, store: Path, tmp_path: Path) -> None:
    export(store, format, tmp_path / "cells")
    table = READ[format](tmp_path / "cells")
    np.testing.assert_allclose(table[["x_um", "y_um"]], MPP * table[["x_px", "y_px"]].to_numpy(), rtol=1e-15)
    assert list(table)[:5] == ["id", "class", "class_id", "score", "prompt_score"]
    assert "geometry" not in table


def test_an_empty_store_gives_the_same_columns_with_the_same_types(store: Path, tmp_path: Path) -> None:
    empty = publish_nuclei(tmp_path / "store", known_nuclei().select(np.zeros(0, np.int64)))
    for name, source in (("full", store), ("empty", empty)):
        export(source, "parquet", tmp_path / name, Choice(measured=("prob*",)))
    full, none = (pandas.read_parquet(tmp_path / name) for name in ("full", "empty"))
    assert len(none) == 0
    assert none.dtypes.to_dict() == full.dtypes.to_dict()


@pytest.mark.parametrize(
    ("name", "unit", "named"),
    [
        ("x", "px", "x_px"),
        ("area_um2", "um2", "area_um2"),
        ("h_total_um2", "OD um2", "h_total_od_um2"),
        ("gradient_mean", "OD/um", "gradient_mean_od_per_um"),
        ("glcm_entropy_bits", "bit", "glcm_entropy_bits"),
        ("solidity", "", "solidity"),
    ],
)
def test_a_unit_stands_in_the_name_once(name: str, unit: str, named: str) -> None:
    assert with_unit(name, unit) == named


def test_gdal_opens_the_geopackage_without_a_warning_and_finds_by_place(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.gpkg"
    export(store, "gpkg", out)
    layer = pyogrio.read_dataframe(out, layer="nuclei")
    assert [ring.equals(shapely.Polygon(vertices)) for ring, vertices in zip(layer.geometry, RINGS, strict=True)]
    assert shapely.get_coordinates(layer.geometry.iloc[0])[:4].tolist() == RINGS[0].tolist()
    assert pyogrio.read_dataframe(out, bbox=(90, 190, 150, 260))["class"].tolist() == ["immune"]
    info = pyogrio.read_info(out, layer="nuclei")
    assert (info["geometry_type"], info["features"], info["fid_column"]) == ("Polygon", 3, "id")
    ogrinfo = shutil.which("ogrinfo")
    if ogrinfo is None:
        pytest.skip("ogrinfo is not installed")
    done = subprocess.run([ogrinfo, "-al", str(out)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Feature Count: 3" in done.stdout
    assert "POLYGON ((10 20,14 20,14 23,10 23,10 20))" in done.stdout


def test_an_edit_in_gdal_keeps_the_index_of_places(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.gpkg"
    export(store, "gpkg", out)
    added = geopandas.GeoDataFrame(
        {"class": ["new"]}, geometry=[shapely.box(500, 500, 510, 510)], crs=pyogrio.read_info(out)["crs"]
    )
    added.to_file(out, layer="nuclei", driver="GPKG", engine="pyogrio", mode="a")
    assert pyogrio.read_dataframe(out, bbox=(490, 490, 520, 520))["class"].tolist() == ["new"]
    assert len(pyogrio.read_dataframe(out)) == 4
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("SELECT count(*) FROM rtree_nuclei_geom").fetchone() == (4,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_layout_of_the_geopackage_is_that_of_gdal(store: Path, tmp_path: Path) -> None:
    """The tables of the standard, their columns and keys, and which triggers there are."""
    export(store, "gpkg", tmp_path / "ours.gpkg")
    theirs = geopandas.GeoDataFrame({"class": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=3857)
    theirs.to_file(tmp_path / "theirs.gpkg", layer="nuclei", driver="GPKG", engine="pyogrio", VERSION="1.2")
    tables = (
        "gpkg_spatial_ref_sys",
        "gpkg_contents",
        "gpkg_geometry_columns",
        "gpkg_extensions",
        "rtree_nuclei_geom",
    )
    layouts = []
    for name in ("ours.gpkg", "theirs.gpkg"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            columns = [connection.execute(f"PRAGMA table_info({table})").fetchall() for table in tables]
            triggers = connection.execute(
                "SELECT name FROM sqlite_master WHERE name GLOB 'rtree_nuclei_geom_[iud]*'"
            )
            ids = [
                connection.execute(f"PRAGMA {pragma}").fetchone() for pragma in ("application_id", "user_version")
            ]
            layouts.append([columns, sorted(triggers.fetchall()), ids])
    assert layouts[0] == layouts[1]


def test_classes_that_differ_only_in_capitals_cannot_be_columns_of_a_geopackage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.features.build.CLASSES", ("tumour", "Tumour", "immune"))
    store = publish_nuclei(tmp_path / "store", known_nuclei())
    with pytest.raises(UsageError, match="two columns are called 'probability_tumour'"):
        export(store, "gpkg", tmp_path / "cells.gpkg")
    assert export(store, "gpkg", tmp_path / "cells.gpkg", Choice(measured=())) == 3
