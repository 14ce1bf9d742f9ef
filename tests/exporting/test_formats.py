"""What every export promises: the store's nuclei in its order, complete or not at all."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from tests.features.build import publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.exporting import export as exporting
from wsi_nuc.exporting.export import Choice, export
from wsi_nuc.exporting.registry import FORMATS
from wsi_nuc.importing import registry as importing
from wsi_nuc.importing.record import Wanted
from wsi_nuc.store import durable
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.store.packing import convert
from wsi_nuc.store.tables import probability_name

COUNT = 400
Outlines = list[tuple[Any, str]]


def imported(path: Path) -> Outlines:
    """As `wsi-nuc import` reads it, which finds out the format."""
    reader = importing.reader(importing.format_of(path))
    return [
        (shape, name)
        for cells in reader.cells(path, Wanted())
        for shape, name in zip(cells.geometry, cells.names, strict=True)
    ]


def read_coco(path: Path) -> Outlines:
    from pycocotools.coco import COCO

    coco = COCO(path)
    return [
        (shapely.Polygon(np.reshape(a["segmentation"][0], (-1, 2))), coco.cats[a["category_id"]]["name"])
        for a in coco.loadAnns(coco.getAnnIds())
    ]


# format -> (name of the file, how it is read back, to which part of a pixel)
FORMAT_TESTS: dict[str, tuple[str, Callable[[Path], Outlines], float]] = {
    "qupath": ("cells.geojson", imported, 1e-4),
    "coco": ("coco.json", read_coco, 1e-4),
    "cellvit": ("cells.json", imported, 1e-4),
    "hovernet": ("hovernet.json", imported, 1e-4),
}


def test_every_format_has_its_row() -> None:
    assert set(FORMAT_TESTS) == set(FORMATS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_nuclei(tmp_path_factory.mktemp("store"), nuclei(COUNT))


@pytest.fixture(scope="module")
def truth(store: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(store / "shapes/nuclei/shapes.parquet")


@pytest.mark.parametrize("format", FORMATS)
def test_a_round_trip_gives_the_same_outlines_and_classes_in_the_same_order(
    format: str, store: Path, truth: geopandas.GeoDataFrame, tmp_path: Path
) -> None:
    name, read, precision = FORMAT_TESTS[format]
    assert export(store, format, tmp_path / name) == COUNT
    nuclei = read(tmp_path / name)
    assert [name for _, name in nuclei] == truth["class"].astype(str).tolist()
    far = [
        shapely.hausdorff_distance(shape, ours) for (shape, _), ours in zip(nuclei, truth.geometry, strict=True)
    ]
    assert max(far) <= precision


@pytest.mark.parametrize("format", FORMATS)
def test_a_packed_store_gives_the_same_file(format: str, store: Path, tmp_path: Path) -> None:
    name = FORMAT_TESTS[format][0]
    shutil.copytree(store, tmp_path / store.name)
    packed = convert(tmp_path / store.name, packed=True)
    assert export(packed, format, tmp_path / name) == export(store, format, tmp_path / f"of-folder-{name}")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"of-folder-{name}").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_choices_are_those_of_the_store(
    format: str, store: Path, truth: geopandas.GeoDataFrame, tmp_path: Path
) -> None:
    name, read, _ = FORMAT_TESTS[format]
    box = (500.0, 700.0, 2500.0, 3000.0)
    wanted = truth[
        (truth["class"] == "immune") & (truth.score >= 0.5) & truth.geometry.envelope.intersects(shapely.box(*box))
    ]
    assert 0 < len(wanted) < COUNT
    written = export(store, format, tmp_path / name, Choice(("immune",), 0.5, box))
    assert written == len(wanted) == len(read(tmp_path / name))


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_without_nuclei_gives_a_valid_empty_file(format: str, tmp_path: Path) -> None:
    name, read, _ = FORMAT_TESTS[format]
    empty = publish_nuclei(tmp_path / "store", nuclei(0))
    assert export(empty, format, tmp_path / name) == 0
    assert read(tmp_path / name) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("operation", ["write", "fsync", "close", "rename"])
def test_a_disk_that_fails_leaves_what_was_there(
    format: str, operation: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = FORMAT_TESTS[format][0]
    out = tmp_path / name
    out.write_bytes(b"before")

    def fail(what: str, path: Path) -> None:
        if what == operation:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "before", fail)
    with pytest.raises(StorageError, match="space"):
        export(store, format, out, overwrite=True)
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_nuclei_give_the_same_bytes_also_compressed(format: str, store: Path, tmp_path: Path) -> None:
    name = FORMAT_TESTS[format][0]
    plain, packed, again = tmp_path / name, tmp_path / f"{name}.gz", tmp_path / f"again.{name}.gz"
    for out in (plain, packed, again):
        export(store, format, out)
    assert packed.read_bytes() == again.read_bytes()
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_nuclei(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", 256, raising=False)
    peaks = []
    for count in (1_000, 8_000):
        store = publish_nuclei(tmp_path / str(count), nuclei(count))
        tracemalloc.start()
        export(store, format, tmp_path / f"{count}.out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 10 * peaks[0] / 2


def test_mistakes_are_reported_before_a_file_is_made(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.geojson"
    for said, arguments in {
        "Did you mean qupath": {"format": "qupat"},
        "no such class": {"choice": Choice(("imune",))},
        "is missing": {"store": tmp_path},
    }.items():
        given: dict[str, Any] = {"store": store, "format": "qupath", "out": out} | arguments
        with pytest.raises((UsageError, StorageError), match=said):
            export(**given)
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        export(store, "qupath", out)
    assert out.read_bytes() == b"mine"


def test_a_store_that_lost_rows_is_not_exported(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = exporting.manifests.read(store)
    monkeypatch.setattr(exporting.manifests, "read", lambda _: manifest | {"counts": {"nuclei": COUNT + 1}})
    with pytest.raises(StorageError, match=r"wsi-nuc verify"):
        export(store, "qupath", tmp_path / "cells.geojson")
    assert list(tmp_path.iterdir()) == []


def test_qupath_gets_a_detection_with_class_colour_and_measurements(store: Path, tmp_path: Path) -> None:
    export(store, "qupath", tmp_path / "cells.geojson")
    document = json.loads((tmp_path / "cells.geojson").read_text())
    assert document["type"] == "FeatureCollection"
    first, second = document["features"][:2]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"]["name"] in CLASSES
    assert len(first["properties"]["classification"]["color"]) == 3
    ring = first["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    known = [set(feature["properties"]["measurements"]) for feature in (first, second)]
    assert {"Detection probability", "Area um^2"} <= known[0] & known[1]
    assert (
        sum("Predicted IoU" in feature["properties"]["measurements"] for feature in document["features"])
        == COUNT / 2
    )
    ids = [feature["id"] for feature in document["features"]]
    assert len(set(ids)) == COUNT


def test_any_column_is_read_beside_the_outline(store: Path, truth: geopandas.GeoDataFrame) -> None:
    with NucleiReader(store, ["probability_immune", "class", "area_um2", "seam"]) as reader:
        assert reader.measured_columns == tuple(map(probability_name, CLASSES))
        rows = list(reader.each())
        boxed = list(reader.each((0, 0, 1000, 1000)))
    assert np.concatenate([r.columns["area_um2"] for r in rows]).tolist() == truth.area_um2.tolist()
    assert np.concatenate([r.columns["class"] for r in rows]).tolist() == truth["class"].astype(str).tolist()
    probabilities = np.concatenate([r.columns["probability_immune"] for r in rows])
    best = truth["class"].to_numpy() == "immune"
    assert probabilities[best].min() >= 1 / 3
    inside = sorted(np.concatenate([r.rings.ids for r in boxed]).tolist())
    near = truth.geometry.envelope.intersects(shapely.box(0, 0, 1000, 1000))
    assert inside == sorted(truth.index[near].tolist())
    with pytest.raises(UsageError, match="no column imune"):
        NucleiReader(store, ["imune"])
