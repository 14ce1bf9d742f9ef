"""A store opens with SpatialData, AnnData and zarr, and what they see is what was written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anndata
import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
import spatialdata
import zarr
from spatialdata.transformations import Identity, Scale, get_transformation

from tests.store.build import CLASSES, nuclei, origin, write_nuclei
from wsi_nuc.store import layout, zarrfile
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.labels import write_labels
from wsi_nuc.store.manifest import walk
from wsi_nuc.store.tables import ProbabilityTable, probability_name
from wsi_nuc.store.tissue import write_thumbnail, write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder

RGB = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def whole_store(root: Path, count: int, labels: bool = True) -> Path:
    folder = ZarrFolder(made_folder(root))
    summary = write_nuclei(folder, [nuclei(count, size=2048)])
    write_tissue(folder, shapely.box(0, 0, 2000, 1500) if count else None, 0.25)
    write_thumbnail(folder, RGB, 32.0)
    if labels:
        write_labels(folder, summary, 2560, 1920)
    layout.seal(folder, origin().key, summary.class_figures, labels)
    return root


def test_spatialdata_sees_every_element(tmp_path: Path) -> None:
    data = spatialdata.read_zarr(whole_store(tmp_path / "s.zarr", 150))
    assert set(data.shapes) == {"nuclei", "tissue"}
    assert set(data.tables) == {"nuclei_table"}
    assert np.array_equal(data.images["thumbnail"].to_numpy(), np.moveaxis(RGB, 2, 0))
    assert list(data.images["thumbnail"].c.to_numpy()) == ["r", "g", "b"]
    assert set(data.labels) == {"nuclei_labels"}
    expected = nuclei(150, size=2048)
    table = data.tables["nuclei_table"]
    assert np.array_equal(table.X, expected.class_probs)
    assert table.var_names.tolist() == list(map(probability_name, CLASSES))
    assert table.obs["id"].tolist() == list(range(1, 151))
    assert table.obs["class"].tolist() == [CLASSES[i] for i in expected.class_id]


def test_table_joins_the_shapes(tmp_path: Path) -> None:
    data = spatialdata.read_zarr(whole_store(tmp_path / "s.zarr", 40, labels=False))
    elements, table = spatialdata.join_spatialelement_table(
        data, spatial_element_names="nuclei", table_name="nuclei_table", how="inner"
    )
    assert len(elements["nuclei"]) == table.n_obs == 40


def test_everything_lies_in_level_0_pixels(tmp_path: Path) -> None:
    data = spatialdata.read_zarr(whole_store(tmp_path / "s.zarr", 40))
    assert get_transformation(data.shapes["nuclei"]) == Identity()
    assert get_transformation(data.shapes["tissue"]) == Identity()
    assert get_transformation(data.labels["nuclei_labels"]) == Identity()
    assert get_transformation(data.images["thumbnail"]) == Scale([1.0, 32.0, 32.0], axes=("c", "y", "x"))


@pytest.mark.parametrize("count", [0, 1])
def test_few_nuclei_open_too(tmp_path: Path, count: int) -> None:
    data = spatialdata.read_zarr(whole_store(tmp_path / "s.zarr", count))
    assert data.tables["nuclei_table"].shape == (count, len(CLASSES))
    assert pd.DataFrame(data.attrs["wsi_nuc"]["classes"])["count"].sum() == count


def test_attributes_state_the_figures_of_the_classes(tmp_path: Path) -> None:
    data = spatialdata.read_zarr(whole_store(tmp_path / "s.zarr", 150, labels=False))
    table = pd.DataFrame(data.attrs["wsi_nuc"]["classes"])
    assert table["class"].tolist() == list(CLASSES)
    assert table["share"].sum() == pytest.approx(1)
    assert (table.area_um2_q05 <= table.area_um2_q50).all()
    assert (table.per_mm2 == table["count"]).all()


def test_spatialdata_queries_and_concatenates(tmp_path: Path) -> None:
    first, second = (spatialdata.read_zarr(whole_store(tmp_path / n, 60, labels=False)) for n in "ab")
    box = {"axes": ("x", "y"), "min_coordinate": [0, 0], "max_coordinate": [1024, 1024]}
    inside = spatialdata.bounding_box_query(first, **box, target_coordinate_system="global")
    assert 0 < len(inside["nuclei"]) < 60
    assert inside["nuclei_table"].obs["id"].tolist() == inside["nuclei"].index.tolist()
    square = spatialdata.polygon_query(first, shapely.box(0, 0, 1024, 1024), target_coordinate_system="global")
    assert len(square["nuclei"]) == square["nuclei_table"].n_obs > 0
    both = spatialdata.concatenate({"a": first, "b": second}, concatenate_tables=True)
    assert both["nuclei_table"].n_obs == 120


def test_pyarrow_keeps_what_makes_it_geoparquet(tmp_path: Path) -> None:
    shapes = whole_store(tmp_path / "s.zarr", 60, labels=False) / layout.NUCLEI_SHAPES / layout.PARQUET
    pq.write_table(pq.read_table(shapes), tmp_path / "again.parquet")
    again, first = geopandas.read_parquet(tmp_path / "again.parquet"), geopandas.read_parquet(shapes)
    assert again.geometry.equals(first.geometry)
    assert (
        pq.read_metadata(tmp_path / "again.parquet").metadata[b"geo"] == pq.read_metadata(shapes).metadata[b"geo"]
    )


def test_nothing_is_a_file_or_a_folder_without_need(tmp_path: Path) -> None:
    everything = list(whole_store(tmp_path / "s.zarr", 150, labels=False).rglob("*"))
    assert len([path for path in everything if path.is_file()]) == 46
    assert len([path for path in everything if path.is_dir()]) == 31


def test_label_pixels_are_those_inside_of_the_polygons(tmp_path: Path) -> None:
    data = spatialdata.read_zarr(whole_store(tmp_path / "s.zarr", 60))
    labels = np.asarray(data.labels["nuclei_labels"]["scale0"]["image"].data)
    assert labels.shape == (1920, 2560)
    y, x = np.nonzero(labels)
    polygons = data.shapes["nuclei"].geometry
    inside = shapely.contains_xy(polygons.loc[labels[y, x]].to_numpy(), x + 0.5, y + 0.5)
    assert inside.all()
    clipped = polygons.intersection(shapely.box(0, 0, 2560, 1920)).union_all().area
    assert len(x) == pytest.approx(clipped, rel=0.02)
    coarse = np.asarray(data.labels["nuclei_labels"]["scale1"]["image"].data)
    assert np.array_equal(coarse, labels[::4, ::4])


def test_zarr_lists_the_groups_without_the_consolidated_copy(tmp_path: Path) -> None:
    root = whole_store(tmp_path / "s.zarr", 20)
    plain = zarr.open_group(root, mode="r", use_consolidated=False)
    copied = zarr.open_group(root, mode="r", use_consolidated=True)
    for name in ("images", "labels", "shapes", "tables"):
        assert sorted(plain[name].group_keys()) == sorted(copied[name].group_keys())
    assert plain[layout.NUCLEI_TABLE]["X"].shape == copied[layout.NUCLEI_TABLE]["X"].shape == (20, 3)


def test_long_tables_go_over_chunks_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarrfile, "CHUNK_ROWS", 64)
    monkeypatch.setattr(zarrfile, "SHARD_CHUNKS", 4)
    table = nuclei(1000)
    folder = ZarrFolder(made_folder(tmp_path))
    written = ProbabilityTable(folder, CLASSES)
    ids = np.arange(1, 1001)
    area_px, centre_l0 = table.areas_and_centres()
    for start in range(0, 1000, 90):
        part = slice(start, min(start + 90, 1000))
        written.append(ids[part], table.between(part.start, part.stop), centre_l0[part], area_px[part])
    written.finish()
    read = anndata.read_zarr(tmp_path / layout.NUCLEI_TABLE)
    assert np.array_equal(read.X, table.class_probs)
    assert np.array_equal(read.obsm["spatial"], centre_l0)
    assert np.array_equal(read.obs[["x", "y", "area"]], np.column_stack([centre_l0, area_px]))
    assert read.obs_names.tolist() == [str(i) for i in ids]
    assert len(list((tmp_path / layout.NUCLEI_TABLE / "X").glob("c.*"))) == 4


def test_two_writings_give_the_same_bytes(tmp_path: Path) -> None:
    stores = [whole_store(tmp_path / name, 80) for name in ("a.zarr", "b.zarr")]
    hashes = [{n: hashlib.sha256((s / n).read_bytes()).hexdigest() for n in walk(s)} for s in stores]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) > 30
