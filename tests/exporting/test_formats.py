"""What every export promises: the store's nuclei in its order, complete or not at all."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import pytest
import shapely

from tests.features.build import publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.exporting.export import Choice, export, export_to, planned, targets
from wsi_nuc.exporting.registry import FORMATS, format_of, kind_of
from wsi_nuc.importing import registry as importing
from wsi_nuc.importing.record import Wanted
from wsi_nuc.store import durable
from wsi_nuc.store import manifest as manifests
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


def read_dicom(path: Path) -> Outlines:
    import highdicom

    groups = highdicom.ann.annread(path).get_annotation_groups()
    return [(shapely.Polygon(xy), group.label) for group in groups for xy in group.get_graphic_data("2D")]


def read_gpkg(path: Path) -> Outlines:
    layer = geopandas.read_file(path, layer="nuclei")
    return list(zip(layer.geometry, layer["class"], strict=True))


def read_table(read: Callable[[Path], Any]) -> Callable[[Path], Outlines]:
    """A flat table has no outlines, so the centroid stands for each."""

    def outlines(path: Path) -> Outlines:
        table = read(path)
        places = shapely.points(table[["x_px", "y_px"]].to_numpy(np.float64))
        return list(zip(places, table["class"], strict=True))

    return outlines


def read_labels(path: Path) -> Outlines:
    """Nuclei in the order of their numbers, as the boxes of their pixels."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    _, ids, classes = Reader(parse_url(path))()
    names = {number: about["class"] for number, about in classes.metadata["properties"].items()}
    ids, classes = ids.data[0].compute(), classes.data[0].compute()
    y, x = np.nonzero(ids)
    pixels = pandas.DataFrame({"id": ids[y, x], "kind": classes[y, x], "x": x, "y": y}).groupby("id")
    low, high, kinds = pixels[["x", "y"]].min(), pixels[["x", "y"]].max() + 1, pixels.kind.agg(["min", "max"])
    assert (kinds["min"] == kinds["max"]).all()
    boxes = shapely.box(low.x, low.y, high.x, high.y)
    return list(zip(boxes, kinds["min"].map(names), strict=True))


# format -> (name of the file, how it is read back, to which part of a pixel)
FORMAT_TESTS: dict[str, tuple[str, Callable[[Path], Outlines], float]] = {
    "qupath": ("cells.geojson", imported, 1e-4),
    "csv": ("cells.csv", read_table(partial(pandas.read_csv, float_precision="round_trip")), 0.0),
    "parquet": ("cells.parquet", read_table(pandas.read_parquet), 0.0),
    "gpkg": ("cells.gpkg", read_gpkg, 0.0),
    "annotationstore": ("cells.db", imported, 0.0),
    "coco": ("coco.json", read_coco, 1e-4),
    "cellvit": ("cells.json", imported, 1e-4),
    "hovernet": ("hovernet.json", imported, 1e-4),
    # Vertices of these tests do not lie on 1/64 px as those of a run do, so single precision is not exact.
    "dicom": ("cells.dcm", read_dicom, 4e-4),
    # Nuclei of these tests overlap and hide each other. `test_labels` compares pixels.
    "labels": ("labels.zarr", read_labels, 32.0),
    "graph": ("graph", read_table(lambda path: pandas.read_parquet(path / "nodes.parquet")), 0.0),
}
# Formats with a group per class: the rows of a class keep their order.
BY_CLASS = ("dicom",)
# Formats that have no file without nuclei.
NEVER_EMPTY = ("dicom",)


KINDS = {format: kind_of(format_of(format)) for format in FORMATS}
BYTES = [format for format, kind in KINDS.items() if kind == "bytes"]
# The calls of `store/durable.py` that an export of each kind makes.
CALLS = {
    "bytes": ("write", "fsync", "close", "rename"),
    "file": ("write", "fsync", "rename"),
    "folder": ("write", "fsync", "exchange"),
}


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_every_format_has_its_row_here_and_in_the_document() -> None:
    assert set(FORMAT_TESTS) == set(FORMATS)
    document = Path(__file__).parents[2] / "docs/exports.md"
    rows = re.findall(r"^\| (`.+?) \|", document.read_text(encoding="utf-8"), re.MULTILINE)
    named = Counter(name for row in rows for name in re.findall("`(.+?)`", row))
    assert {name: named[name] for name in FORMATS} == dict.fromkeys(FORMATS, 2), (
        "what it is, and where a pixel begins"
    )


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
    if format in BY_CLASS:
        truth = truth.sort_values("class_id", kind="stable")
    assert [name for _, name in nuclei] == truth["class"].astype(str).tolist()
    centres = shapely.points(truth.x, truth.y)
    far = [
        shapely.hausdorff_distance(shape, centre if shape.geom_type == "Point" else ours)
        for (shape, _), ours, centre in zip(nuclei, truth.geometry, centres, strict=True)
    ]
    assert max(far) <= precision


@pytest.mark.parametrize("format", FORMATS)
def test_a_packed_store_gives_the_same_file(format: str, store: Path, tmp_path: Path) -> None:
    name = FORMAT_TESTS[format][0]
    shutil.copytree(store, tmp_path / store.name)
    packed = convert(tmp_path / store.name, packed=True)
    assert export(packed, format, tmp_path / name) == export(store, format, tmp_path / f"of-folder-{name}")
    assert content(tmp_path / name) == content(tmp_path / f"of-folder-{name}")


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
    if format in NEVER_EMPTY:
        with pytest.raises(UsageError, match="no such nuclei"):
            export(empty, format, tmp_path / name)
        assert not (tmp_path / name).exists()
        return
    assert export(empty, format, tmp_path / name) == 0
    assert read(tmp_path / name) == []


@pytest.mark.parametrize(
    ("format", "call"), [(format, call) for format, kind in KINDS.items() for call in CALLS[kind]]
)
def test_a_disk_that_fails_leaves_what_was_there(
    format: str, call: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / FORMAT_TESTS[format][0]
    export(store, format, out, Choice(min_score=0.9))
    before, names = content(out), sorted(tmp_path.iterdir())

    def fail(what: str, path: Path) -> None:
        if what == call:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "before", fail)
    with pytest.raises(StorageError, match="space"):
        export(store, format, out, overwrite=True)
    assert (content(out), sorted(tmp_path.iterdir())) == (before, names)
    monkeypatch.setattr(durable, "before", None)
    assert export(store, format, out, overwrite=True) == COUNT
    assert content(out) != before
    assert sorted(tmp_path.iterdir()) == names


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_nuclei_give_the_same_bytes(format: str, store: Path, tmp_path: Path) -> None:
    name = FORMAT_TESTS[format][0]
    for folder in ("first", "second"):
        export(store, format, tmp_path / folder / name)
    assert content(tmp_path / "first" / name) == content(tmp_path / "second" / name)


@pytest.mark.parametrize("format", BYTES)
def test_a_name_that_ends_in_gz_compresses(format: str, store: Path, tmp_path: Path) -> None:
    name = FORMAT_TESTS[format][0]
    plain, packed, again = tmp_path / name, tmp_path / f"{name}.gz", tmp_path / f"again.{name}.gz"
    for out in (plain, packed, again):
        export(store, format, out)
    assert packed.read_bytes() == again.read_bytes()
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_several_stores_give_a_file_each_named_after_the_slide(format: str, store: Path, tmp_path: Path) -> None:
    other = publish_nuclei(tmp_path, nuclei(5), name="y.tif.zarr")
    out, suffix = tmp_path / "out", format_of(format).SUFFIX
    plan = planned([store, other], format, out)
    assert plan == [(store, out / f"x.svs{suffix}"), (other, out / f"y.tif{suffix}")]
    assert [export_to(source, format, path) for source, path in plan] == [COUNT, 5]
    read = FORMAT_TESTS[format][1]
    assert [len(read(path)) for _, path in plan] == [COUNT, 5]
    assert export(other, format, tmp_path / "alone") == 5
    with pytest.raises(UsageError, match="--overwrite"):
        planned([other, store], format, out)


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two stores, one with eight times the nuclei of the other, in row groups of 256."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", 256)
        return [publish_nuclei(tmp_path_factory.mktemp("size"), nuclei(count)) for count in (1_000, 8_000)]


@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_nuclei(format: str, few_and_many: list[Path], tmp_path: Path) -> None:
    peaks = []
    for number, store in enumerate(few_and_many):
        tracemalloc.start()
        export(store, format, tmp_path / f"{number}.out")
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


def test_out_is_the_file_of_one_store_and_a_folder_of_several(store: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    twin = publish_nuclei(tmp_path / "twin", nuclei(1))
    assert targets([store], "qupath", tmp_path / "new") == [tmp_path / "new"]
    assert targets([store], "qupath", tmp_path / "there") == [tmp_path / "there" / "x.svs.geojson"]
    with pytest.raises(UsageError, match="two of the stores have this slide name"):
        targets([store, twin], "qupath", tmp_path / "new")
    for place in (twin, twin / "new", twin / "tables" / "new", store / "zarr.json"):
        with pytest.raises(UsageError, match="is a result of wsi-nuc"):
            targets([store], "qupath", place)


def test_of_several_stores_one_may_lack_a_class_but_not_all(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.features.build.CLASSES", ("tumour", "gland", "vessel"))
    other, out = publish_nuclei(tmp_path / "stores", nuclei(50), name="y.svs.zarr"), tmp_path / "out"
    with pytest.raises(UsageError, match="Did you mean immune"):
        planned([other, store], "qupath", out, Choice(("imune",)))
    choice = Choice(("immune",))
    plan = planned([other, store], "qupath", out, choice)
    counts = [export_to(source, "qupath", path, choice) for source, path in plan]
    assert counts[0] == 0 < counts[1]


def _unfinished(store: Path) -> None:
    (store / "manifest.json").unlink()


def _newer(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text()) | {"format": 99}
    (store / "manifest.json").write_text(json.dumps(manifest | {"digest": manifests.digest(manifest)}))


def _cut_off(store: Path) -> None:
    parquet = store / "shapes/nuclei/shapes.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-1000])


def _one_other_bit(store: Path) -> None:
    parquet = store / "shapes/nuclei/shapes.parquet"
    data = bytearray(parquet.read_bytes())
    data[len(data) // 3] ^= 1
    parquet.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_unfinished, "is missing, so nothing says what was published"),
        (_newer, "has format 99, which this version of wsi-nuc does not know"),
        (_cut_off, "cannot be read"),
        (_one_other_bit, "has other content than was published"),
    ],
)
def test_a_store_that_is_not_whole_is_not_exported(
    harm: Callable[[Path], None], said: str, store: Path, tmp_path: Path
) -> None:
    copy, out = tmp_path / store.name, tmp_path / "out"
    shutil.copytree(store, copy)
    harm(copy)
    with pytest.raises(StorageError, match=said):
        export(copy, "qupath", out / "cells.geojson")
    assert not out.exists()


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
