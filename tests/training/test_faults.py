"""Broken labels: a clear error names the file, or a repair is counted; nothing is skipped silently."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.datasets import layouts
from wsi_nuc.datasets import DataError, check_dataset, load_dataset
from wsi_nuc.datasets.files import read_array
from wsi_nuc.datasets.labels import clean_labels, fragmented, types_of
from wsi_nuc.errors import UsageError

IDS = st.sampled_from([0, 0, 1, 5, 70_000])


@given(arrays(st.sampled_from([np.uint16, np.int64, np.uint64, np.float64]), (5, 6), elements=st.integers(0, 9)))
@settings(max_examples=100, deadline=None)
def test_ids_become_consecutive_and_every_nucleus_keeps_its_pixels(raw: np.ndarray) -> None:
    repairs: Counter[str] = Counter()
    labels, ids = clean_labels(raw, "here", repairs)
    assert labels.dtype == np.int32
    assert sorted(set(labels.ravel()) - {0}) == list(range(1, len(ids) + 1))
    for new, old in enumerate(ids, start=1):
        assert labels[raw == old].tolist() == [new] * int((raw == old).sum())
    changed = int(((labels > 0) & (raw == 0)).sum())
    assert (changed > 0) == (repairs["holes filled"] > 0)
    assert bool(repairs["images with non-consecutive ids"]) == (ids.tolist() != list(range(1, len(ids) + 1)))
    assert bool(repairs["images with labels stored as floats"]) == (raw.dtype.kind == "f")


def test_only_holes_within_one_nucleus_are_filled() -> None:
    labels = np.zeros((12, 20), np.int32)
    labels[1:8, 1:8] = 1
    labels[3:5, 3:5] = 0  # a hole
    labels[6, 6] = 2  # a nucleus inside, which stays
    labels[1:6, 10:13] = 3
    labels[1:6, 14:17] = 4
    labels[1, 13], labels[5, 13] = 3, 4  # a gap between two nuclei, which stays
    labels[8:12, 18:20] = 5
    labels[10:12, 19] = 0  # open to the border of the image
    repairs: Counter[str] = Counter()
    clean, _ = clean_labels(labels, "here", repairs)
    assert repairs == {"holes filled": 1}
    assert (clean[3:5, 3:5] == 1).all()
    changed = clean != labels
    changed[3:5, 3:5] = False
    assert not changed.any()


def test_nuclei_in_pieces_are_counted_and_left_alone() -> None:
    labels = np.zeros((6, 8), np.int32)
    labels[0, 0], labels[5, 7], labels[2, 2], labels[3, 3] = 1, 1, 2, 2
    assert fragmented(labels) == 1
    repairs: Counter[str] = Counter()
    assert np.array_equal(clean_labels(labels, "here", repairs)[0], labels)
    assert repairs == {"nuclei in several pieces (kept)": 1}


def test_ids_over_65535_are_renumbered_and_counted() -> None:
    repairs: Counter[str] = Counter()
    raw = np.zeros((4, 4), np.uint32)
    raw[0, 0], raw[2, 2] = 70_000, 4_000_000_000
    labels, ids = clean_labels(raw, "here", repairs)
    assert (labels[0, 0], labels[2, 2]) == (1, 2)
    assert ids.tolist() == [70_000, 4_000_000_000]
    assert repairs["images with ids over 65535"] == 1


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (np.full((3, 3), 0.5), "not integers"),
        (np.full((3, 3), np.nan), "not integers"),
        (np.full((3, 3), 1e300), "not integers"),
        (np.full((3, 3), -1), "negative id -1"),
        (np.ones((3, 3), bool), "yes/no mask"),
        (np.ones((3, 3), complex), "complex128"),
        (np.ones((3, 3, 3), int), "shape"),
    ],
)
def test_what_is_not_a_label_image_is_refused(raw: np.ndarray, cause: str) -> None:
    with pytest.raises(DataError, match=cause) as caught:
        clean_labels(raw, "labels/x.png", Counter())
    assert "labels/x.png" in str(caught.value)
    assert caught.value.remedy


def test_the_type_of_a_nucleus_is_that_of_most_of_its_pixels() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 0]], np.int32)
    kinds = np.array([[2, 2, 1, 0, 0, 3]])
    repairs: Counter[str] = Counter()
    assert types_of(labels, kinds, 3, "here", repairs).tolist() == [1, -1]
    assert repairs == {
        "images with types outside nuclei (ignored)": 1,
        "nuclei of mixed type (majority taken)": 1,
        "nuclei without type": 1,
    }


def shrink(root: Path) -> None:
    layouts.save(root / "labels/one.png", layouts.labels().astype(np.uint16)[:-1])


def shrink_types(root: Path) -> None:
    layouts.save(root / "types/one.png", layouts.type_map()[:, 1:])


def unnamed_type(root: Path) -> None:
    layouts.save(root / "types/one.png", layouts.type_map() * 3)


def truncate(root: Path) -> None:
    path = root / "labels/one.png"
    path.write_bytes(path.read_bytes()[:60])


def truncate_image(root: Path) -> None:
    path = root / "images/one.png"
    path.write_bytes(path.read_bytes()[:200])


def no_picture(root: Path) -> None:
    (root / "images/one.png").write_bytes(b"not a picture")


def deep(root: Path) -> None:
    layouts.save(root / "images/one.png", np.zeros((layouts.HEIGHT, layouts.WIDTH), np.uint16))


def wrong_class(root: Path) -> None:
    layouts.write(root / "points/one.csv", "x,y,class\n3,4,square\n")


def no_number(root: Path) -> None:
    layouts.write(root / "points/one.csv", "x,y,class\n3,four,round\n")


def not_finite(root: Path) -> None:
    layouts.write(root / "points/one.csv", "x,y\n3,nan\n")


def no_column(root: Path) -> None:
    layouts.write(root / "points/one.csv", "column,row\n3,4\n")


def colour_mask(root: Path) -> None:
    layouts.save(root / "masks/one.png", layouts.type_map() * 40)


def small_mask(root: Path) -> None:
    layouts.save(root / "masks/one.png", np.zeros((3, 3), np.uint8))


@pytest.mark.parametrize(
    ("layout", "damage", "cause"),
    [
        (layouts.plain, shrink, r"labels are \(39, 48\) and the image \(40, 48\)"),
        (layouts.plain, shrink_types, r"types are \(40, 47\)"),
        (layouts.plain, unnamed_type, "type 6, but 2 classes are named"),
        (layouts.plain, truncate, "cannot be read"),
        (layouts.plain, truncate_image, "cannot be read"),
        (layouts.plain, no_picture, "cannot be read"),
        (layouts.plain, deep, "uint16 image"),
        (layouts.points, wrong_class, "class 'square' is not among round, long"),
        (layouts.points, no_number, "not a number"),
        (layouts.points, not_finite, "not finite"),
        (layouts.points, no_column, "no column x, y"),
        (layouts.foreground, colour_mask, "more than two values"),
        (layouts.foreground, small_mask, r"mask is \(3, 3\)"),
    ],
)
def test_a_broken_file_is_named_with_cause_and_remedy(
    layout: Callable[[Path], None], damage: Callable[[Path], None], cause: str, tmp_path: Path
) -> None:
    layout(tmp_path)
    damage(tmp_path)
    dataset = load_dataset(tmp_path)
    with pytest.raises(DataError, match=cause) as caught:
        dataset[0]
    assert "one." in caught.value.subject
    assert caught.value.remedy
    assert "one" in check_dataset(tmp_path).broken


def test_points_outside_are_dropped_and_counted(tmp_path: Path) -> None:
    layouts.points(tmp_path)
    layouts.write(tmp_path / "points/one.csv", "x,y,class\n3,4,round\n48,4,round\n-1,2,long\n47,39,long\n")
    image = load_dataset(tmp_path)[0]
    assert image.points_xy is not None
    assert image.point_types is not None
    assert (image.points_xy.tolist(), image.point_types.tolist()) == ([[3.5, 4.5], [47.5, 39.5]], [0, 1])
    assert image.repairs == {"points outside the image (dropped)": 2}


def test_alpha_and_grey_images_are_read_and_counted(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    layouts.save(tmp_path / "images/one.png", np.dstack([layouts.rgb(), layouts.rgb()[:, :, 0]]))
    image = load_dataset(tmp_path)[0]
    assert np.array_equal(image.rgb, layouts.rgb())
    assert image.repairs["images with alpha (dropped)"] == 1
    layouts.save(tmp_path / "images/one.png", layouts.rgb()[:, :, 1])
    image = load_dataset(tmp_path)[0]
    assert image.rgb.shape == (layouts.HEIGHT, layouts.WIDTH, 3)
    assert image.repairs["grey images"] == 1


def test_empty_and_unknown_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no labelled images of a known layout"):
        load_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="finds no labelled image"):
        load_dataset(tmp_path)


def test_a_manifest_that_disagrees_with_the_images_is_refused(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    layouts.write(tmp_path / "manifest.csv", "id\none\ntwo\n")
    with pytest.raises(DataError, match="lists two without an image"):
        load_dataset(tmp_path)
    layouts.save(tmp_path / "images/three.png", layouts.rgb())
    layouts.write(tmp_path / "manifest.csv", "id\none\n")
    with pytest.raises(DataError, match="does not list the image three"):
        load_dataset(tmp_path)


def test_labels_without_an_image_and_images_without_labels_are_errors(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    layouts.save(tmp_path / "images/two.png", layouts.rgb())
    with pytest.raises(DataError, match="neither labels nor points"):
        load_dataset(tmp_path)[1]
    layouts.save(tmp_path / "labels/three.png", layouts.labels().astype(np.uint16))
    with pytest.raises(DataError, match="labels without an image: three"):
        load_dataset(tmp_path)


def test_types_without_names_are_refused(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(DataError, match="have no names"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"clases": ["a"]}',
        '{"classes": ["a", "a"]}',
        '{"classes": "ab"}',
        '{"mpp": "0.25"}',
        '{"mpp": 0}',
        "[",
        "[]",
    ],
)
def test_a_wrong_dataset_json_is_refused(text: str, tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    layouts.write(tmp_path / "dataset.json", text)
    with pytest.raises(UsageError, match=r"dataset\.json"):
        load_dataset(tmp_path)


def test_unknown_names_of_readers_and_data_sets_are_refused(tmp_path: Path) -> None:
    layouts.plain(tmp_path)
    with pytest.raises(UsageError, match="Did you mean folder"):
        load_dataset(tmp_path, reader_name="foldr")
    with pytest.raises(UsageError, match="not a known data set"):
        load_dataset(tmp_path, name="consepp")


def test_other_layouts_name_their_broken_files(tmp_path: Path) -> None:
    xml, geo, mat = tmp_path / "xml", tmp_path / "geo", tmp_path / "mat"
    layouts.imagescope(xml)
    layouts.write(xml / "train/Annotations/one.xml", "<Annotations><Region>")
    with pytest.raises(DataError, match="not an ImageScope annotation"):
        load_dataset(xml)[0]
    layouts.geojson(geo)
    layouts.write(geo / "one.geojson", json.dumps([{"geometry": {"type": "LineString", "coordinates": [[0, 0]]}}]))
    with pytest.raises(DataError, match="geometry of type LineString"):
        load_dataset(geo)[0]
    layouts.mat(mat)
    (mat / "Train/Labels/one.mat").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a MATLAB file"):
        load_dataset(mat)[0]


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    layouts.pannuke(tmp_path)
    np.save(tmp_path / "Fold 1/images/fold1/types.npy", np.array(["Breast", None], object))
    with pytest.raises(DataError, match=r"types\.npy: cannot be read"):
        load_dataset(tmp_path)


def test_incomplete_folds_are_named(tmp_path: Path) -> None:
    layouts.pannuke(tmp_path)
    np.save(tmp_path / "Fold 2/images/fold2/types.npy", np.array(["Breast"]))
    with pytest.raises(DataError, match="2 images, 2 masks, 1 tissues"):
        load_dataset(tmp_path)
    (tmp_path / "Fold 2/images/fold2/types.npy").unlink()
    with pytest.raises(DataError, match=r"has no types\.npy"):
        load_dataset(tmp_path)


@given(
    st.sampled_from([".tif", ".png", ".bmp", ".jpg"]), st.integers(0, 10_000), st.integers(0, 255), st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_damaged_pictures_are_read_or_refused_but_never_crash(
    suffix: str, place: int, value: int, cut: bool
) -> None:
    picture = _encoded(suffix)
    damaged = bytearray(picture[: place % len(picture)] if cut else picture)
    if not cut:
        damaged[place % len(picture)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"one{suffix}"
        path.write_bytes(damaged)
        try:
            outcome = read_array(path).dtype.kind
        except DataError as error:
            outcome = error.subject
        assert outcome in {"b", "u", "i", "f", str(path)}


@cache
def _encoded(suffix: str) -> bytes:
    out = io.BytesIO()
    if suffix == ".tif":
        import tifffile

        tifffile.imwrite(out, layouts.rgb(), compression="zlib")
    else:
        Image.fromarray(layouts.rgb()).save(out, {".png": "png", ".bmp": "bmp", ".jpg": "jpeg"}[suffix])
    return out.getvalue()


def test_a_result_without_nuclei_is_an_image_without_nuclei(tmp_path: Path) -> None:
    layouts.results(tmp_path, nuclei=0)
    image = load_dataset(tmp_path)[0]
    assert image.count == 0
    assert image.types is not None
    assert len(image.types) == 0
    (tmp_path / "dataset.json").unlink()
    assert load_dataset(tmp_path)[0].count == 0


def test_a_damaged_result_and_an_unreadable_slide_are_named(tmp_path: Path) -> None:
    layouts.results(tmp_path)
    (tmp_path / "one.png").write_bytes(b"no picture")
    assert "one.png" in check_dataset(tmp_path).broken["one.png"]
    layouts.save(tmp_path / "one.png", layouts.rgb())
    (tmp_path / "one.png.zarr/shapes/nuclei/shapes.parquet").write_bytes(b"PAR1")
    assert "shapes.parquet" in check_dataset(tmp_path).broken["one.png"]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mat", ["Train/Images/one.png"]),
        ("tnbc", ["Slide_01/one.png"]),
        ("imagescope", ["train/Tissue Images/one.tif"]),
        ("geojson", ["one.png"]),
        ("results", ["one.png"]),
    ],
)
def test_labels_whose_image_is_missing_are_named(name: str, files: list[str], tmp_path: Path) -> None:
    layouts.LAYOUTS[name].write(tmp_path)
    for file in files:
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match=r"image") as caught:
        load_dataset(tmp_path)
    assert "one" in caught.value.subject
