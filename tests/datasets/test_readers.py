"""Every layout gives the same record. Also splits, groups, and what only one layout has."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.datasets import layouts
from wsi_nuc.datasets import DataError, Dataset, load_dataset
from wsi_nuc.errors import StorageError
from wsi_nuc.store import manifest
from wsi_nuc.types import TileCounts


def written(name: str, folder: Path) -> Dataset:
    layouts.LAYOUTS[name].write(folder)
    return load_dataset(folder)


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_is_recognised_and_gives_the_same_labels(name: str, tmp_path: Path) -> None:
    dataset = written(name, tmp_path)
    assert dataset.reader == name
    image = dataset[0]
    assert np.array_equal(image.rgb, layouts.rgb())
    assert image.instances is not None
    # Ids may be numbered in another order; the nuclei must be the same.
    assert {tuple(np.flatnonzero(image.instances == i)) for i in (1, 2, 3)} == {
        tuple(np.flatnonzero(layouts.labels() == i)) for i in (1, 2, 3)
    }
    assert (image.mpp, image.supervision, image.count) == (0.25, "masks", 3)


@pytest.mark.parametrize("name", [name for name, layout in layouts.LAYOUTS.items() if layout.typed])
def test_typed_layouts_give_each_nucleus_its_class(name: str, tmp_path: Path) -> None:
    image = written(name, tmp_path)[0]
    assert image.classes == layouts.CLASSES
    assert image.instances is not None
    assert image.types is not None
    for (x, y, _, _), kind in zip(layouts.BOXES, layouts.TYPES, strict=True):
        assert image.types[image.instances[y, x] - 1] == kind


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_datasets_travel_to_workers(name: str, tmp_path: Path) -> None:
    dataset = written(name, tmp_path)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.ids == dataset.ids
    assert np.array_equal(copy[0].instances, dataset[0].instances)


def test_points_are_pixel_centres_with_their_class(tmp_path: Path) -> None:
    layouts.points(tmp_path)
    image = load_dataset(tmp_path)[0]
    assert image.supervision == "points"
    assert image.points_xy is not None
    assert image.point_types is not None
    assert image.points_xy.tolist() == [[8.5, 8.5], [27.5, 12.5], [10.5, 30.5]]
    assert image.point_types.tolist() == list(layouts.TYPES)


def test_points_between_pixels_are_kept_as_they_are(tmp_path: Path) -> None:
    layouts.points(tmp_path)
    layouts.write(tmp_path / "points/one.csv", "x,y\n1.25,2\n")
    image = load_dataset(tmp_path)[0]
    assert image.points_xy is not None
    assert image.points_xy.tolist() == [[1.25, 2]]
    assert image.point_types is not None
    assert image.point_types.tolist() == [-1]


def test_foreground_counts_no_nuclei(tmp_path: Path) -> None:
    layouts.foreground(tmp_path)
    image = load_dataset(tmp_path)[0]
    assert (image.supervision, image.count) == ("foreground", None)
    assert image.foreground is not None
    assert np.array_equal(image.foreground, layouts.labels() > 0)


def test_the_manifest_gives_splits_groups_and_resolution(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    layouts.save(tmp_path / "images/two.png", layouts.rgb(2))
    layouts.save(tmp_path / "labels/two.png", layouts.labels().astype(np.uint16))
    layouts.write(tmp_path / "manifest.csv", "id,split,patient,mpp\none,train,P1,0.5\ntwo,val,P2,\n")
    dataset = load_dataset(tmp_path)
    assert [(i.id, i.split, i.group, i.mpp) for i in dataset] == [
        ("one", "train", "P1", 0.5),
        ("two", "val", "P2", 0.25),
    ]
    assert dataset.select(split="val").ids == ("two",)
    assert dataset.select(groups={"P1"}).ids == ("one",)
    with pytest.raises(DataError, match="splits are train, val"):
        dataset.select(split="test")


def test_a_pannuke_image_without_nuclei_is_read(tmp_path: Path) -> None:
    layouts.pannuke(tmp_path)
    empty = load_dataset(tmp_path)[1]
    assert (empty.count, empty.group) == (0, "Colon")
    assert empty.types is not None
    assert len(empty.types) == 0


def test_pannuke_pixels_of_two_classes_go_to_the_later_one_and_are_counted(tmp_path: Path) -> None:
    layouts.pannuke(tmp_path)
    path = tmp_path / "Fold 1/masks/fold1/masks.npy"
    masks = np.load(path)
    x, y, w, h = layouts.BOXES[0]
    masks[0, y : y + 2, x : x + w, 1] = 99
    np.save(path, masks)
    image = load_dataset(tmp_path)[0]
    assert image.repairs["pixels claimed by two nuclei"] == 2 * w
    assert image.instances is not None
    assert image.types is not None
    assert image.types[image.instances[y, x] - 1] == 1
    assert image.types[image.instances[y + h - 1, x] - 1] == 0


def test_consep_types_are_merged_as_in_its_paper(tmp_path: Path) -> None:
    from scipy.io import savemat

    root = tmp_path / "CoNSeP"
    layouts.save(root / "Test/Images/one.png", layouts.rgb())
    (root / "Test/Labels").mkdir()
    kinds = np.array([0, 4, 7, 2])[layouts.labels()]
    savemat(root / "Test/Labels/one.mat", {"inst_map": layouts.labels(), "type_map": kinds})
    image = load_dataset(root)[0]
    assert image.types is not None
    assert [image.classes[t] for t in image.types] == ["epithelial", "spindle", "inflammatory"]
    assert image.split == "test"


def test_tnbc_ids_are_kept_where_the_ground_truth_has_them(tmp_path: Path) -> None:
    layouts.tnbc(tmp_path)
    touching = layouts.labels()
    touching[5:12, 12:20] = 2
    layouts.save(tmp_path / "GT_01/one.png", (touching * 40).astype(np.uint8))
    image = load_dataset(tmp_path, name="tnbc")[0]
    assert image.count == 3
    assert np.array_equal(image.instances, touching)
    assert image.group == "01"


def test_qupath_cells_prefer_their_nucleus_and_holes_and_points_are_read(tmp_path: Path) -> None:
    layouts.save(tmp_path / "one.png", layouts.rgb())
    outer = [[2, 2], [12, 2], [12, 12], [2, 12], [2, 2]]
    inner = [[4, 4], [8, 4], [8, 8], [4, 8], [4, 4]]
    features = [
        {
            "geometry": {"type": "Polygon", "coordinates": [outer]},
            "nucleusGeometry": {"type": "Polygon", "coordinates": [inner]},
            "properties": {"classification": "Tumor"},
        },
        {"geometry": {"type": "Point", "coordinates": [30.5, 20.5]}, "properties": {}},
        {
            "geometry": {"type": "MultiPolygon", "coordinates": [[[[20, 20], [24, 20], [24, 24], [20, 24]]]]},
            "properties": {"classification": {"names": ["Immune", "CD3"]}},
        },
    ]
    layouts.write(tmp_path / "one.geojson", json.dumps(features))
    image = load_dataset(tmp_path)[0]
    assert image.classes == ("Immune: CD3", "Tumor")
    assert image.instances is not None
    assert np.bincount(image.instances.ravel())[1:].tolist() == [16, 16]
    assert image.types is not None
    assert image.types.tolist() == [1, 0]
    assert image.points_xy is not None
    assert image.points_xy.tolist() == [[30.5, 20.5]]


def test_overlapping_outlines_are_counted(tmp_path: Path) -> None:
    layouts.imagescope(tmp_path)
    text = (tmp_path / "train/Annotations/one.xml").read_text()
    extra = (
        '<Region><Vertices><Vertex X="4" Y="5"/><Vertex X="8" Y="5"/><Vertex X="8" Y="7"/><Vertex X="4" Y="7"/>'
    )
    outside = '<Region><Vertices><Vertex X="90" Y="5"/><Vertex X="95" Y="5"/><Vertex X="95" Y="7"/>'
    click = '<Region><Vertices><Vertex X="9" Y="5"/>'
    end = "</Vertices></Region>"
    text = text.replace("</Regions>", f"{extra}{end}{outside}{end}{click}{end}</Regions>")
    layouts.write(tmp_path / "train/Annotations/one.xml", text)
    image = load_dataset(tmp_path)[0]
    assert image.count == 4
    assert image.repairs == {
        "outlines under three vertices (dropped)": 1,
        "pixels claimed by two nuclei": 8,
        "outlines without a pixel (dropped)": 1,
    }
    assert image.split == "train"


def test_a_data_set_can_be_sliced_without_reading(tmp_path: Path) -> None:
    layouts.pannuke(tmp_path)
    assert load_dataset(tmp_path)[2:4].ids == ("2_0", "2_1")


def test_a_result_has_the_resolution_that_its_manifest_was_published_with(tmp_path: Path) -> None:
    layouts.results(tmp_path)
    assert load_dataset(tmp_path)[0].mpp == 0.25
    store = tmp_path / "one.png.zarr"
    origin = manifest.Origin({}, {"mpp": 0.3}, {})
    document = manifest.build(store, origin, manifest.Accounting(TileCounts()), {}, {})
    (store / manifest.MANIFEST).write_text(json.dumps(document))
    assert load_dataset(tmp_path)[0].mpp == 0.3
    (store / manifest.MANIFEST).write_text(json.dumps({**document, "slide": {"mpp": 0.5}}))
    with pytest.raises(DataError, match="was changed"):
        load_dataset(tmp_path)[0]


def test_packed_results_are_read_as_they_are(tmp_path: Path) -> None:
    for name in ("folder", "packed"):
        (tmp_path / name).mkdir()
        layouts.results(tmp_path / name)
    store = tmp_path / "packed" / "one.png.zarr"
    with zipfile.ZipFile(f"{store}.zip", "w") as archive:
        for path in sorted(path for path in store.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(store).as_posix())
    shutil.rmtree(store)
    (packed,), (folder,) = (load_dataset(tmp_path / name) for name in ("packed", "folder"))
    assert (packed.id, packed.mpp) == (folder.id, folder.mpp)
    assert np.array_equal(packed.instances, folder.instances)
    assert np.array_equal(packed.types, folder.types)
    (tmp_path / "packed/one.png.zarr.zip").write_bytes(b"PK")
    with pytest.raises(StorageError, match="cut off"):
        load_dataset(tmp_path / "packed")[0]


def test_results_name_the_classes_in_the_order_of_their_model(tmp_path: Path) -> None:
    layouts.results(tmp_path)
    (tmp_path / "dataset.json").unlink()
    image = load_dataset(tmp_path)[0]
    assert image.classes == layouts.CLASSES
    assert image.types is not None
    assert image.types.tolist() == list(layouts.TYPES)
