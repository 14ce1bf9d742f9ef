"""A folder beside the published Kumar, CPM-17 and PanNuke: what is missing, doubled or elsewhere is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from tests.datasets import layouts
from wsi_nuc.cli import app
from wsi_nuc.datasets import check_dataset, load_dataset
from wsi_nuc.datasets.published import PUBLISHED, Seen, compare
from wsi_nuc.errors import UsageError


def as_published(name: str) -> list[Seen]:
    """What a check sees of the set itself. Names of TCGA are longer in the files than in the lists."""
    known = PUBLISHED[name]
    listed = {split: known.lists.get(split) or [str(i) for i in range(n)] for split, n in known.splits.items()}
    names = [(split, image) for split, images in listed.items() for image in images]
    return [
        Seen(f"{split}/{image}" if image.startswith("image_") else f"{image}-01Z-00-DX1" if known.lists else image,
             split, known.sizes[0], f"{split} {image}")
        for split, image in names
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "images", "nuclei"), [("kumar", 30, 21_623), ("cpm17", 64, 7_570)])
def test_the_set_itself_agrees(name: str, images: int, nuclei: int) -> None:
    result = compare(name, as_published(name), [], nuclei)
    assert result.agrees
    assert (result.images, result.nuclei) == ((images, images), (nuclei, nuclei))
    assert result.lines()[-1].endswith("as published")


def test_the_folds_of_pannuke_are_counted_and_the_papers_other_number_is_named() -> None:
    result = compare("pannuke", as_published("pannuke"), [], 189_744)
    assert result.agrees
    assert result.images == (7_901, 7_901)
    assert "7,899" in result.note
    without = [image for image in as_published("pannuke") if image.split != "fold2"]
    assert compare("pannuke", without, [], 189_744).missing == ["all of fold2"]
    copied = without + [replace(image, split="fold2", id=f"2_{image.id}") for image in without[:2_656]]
    result = compare("pannuke", copied, [], 189_744)
    assert len(result.doubled) == 2_656
    assert "0 (fold1) and 2_0 (fold2) have the same pixels" in result.doubled
    assert result.misplaced == ["fold2 has 133 images more than published"]
    assert "and 2,648 more" in "\n".join(result.lines())


def test_what_is_missing_doubled_or_in_the_wrong_split_is_named() -> None:
    kumar = as_published("kumar")
    moved = [replace(kumar[0], split="test_same"), *kumar[2:]]
    result = compare("kumar", moved, [], 21_623)
    assert result.missing == ["TCGA-A7-A13F (train)"]
    assert result.misplaced == ["TCGA-A7-A13E is in test, published in train"]
    strange = [*kumar, Seen("TCGA-AC-A2FO-01A-01-TS1", "test", "1000x1000", "x")]
    assert compare("kumar", strange, [], 21_623).misplaced == ["TCGA-AC-A2FO is in none of the published lists"]
    assert compare("kumar", kumar[1:], [(kumar[0].id, "train")], 21_623).agrees  # broken, but not missing
    unsplit = [replace(image, split="") for image in kumar[1:]]
    assert compare("kumar", unsplit, [], 21_623).missing == ["TCGA-A7-A13E (train)"]
    cpm17 = as_published("cpm17")
    assert compare("cpm17", cpm17[1:], [], 7_570).missing == ["image_00 (train)"]
    fewer = compare("cpm17", [replace(cpm17[0], size="250x250"), *cpm17[1:]], [], 7_400)
    assert fewer.other == [
        "train/image_00 has 250x250 px, published 500x500 or 600x600 or 500x600 or 600x500",
        "7,400 nuclei, published 7,570 (-2.2%)",
    ]
    assert compare("cpm17", cpm17, [], 7_540).agrees  # a few nuclei under others


def test_an_image_of_the_training_set_in_the_test_set_is_found_by_its_pixels(tmp_path: Path) -> None:
    """CPM-17 gives images of both splits the same names, so that names alone show nothing."""
    for split, name, seed in (("train", "image_00", 0), ("train", "image_01", 1), ("test", "image_00", 0)):
        layouts.save(tmp_path / "cpm17" / split / "Images" / f"{name}.png", layouts.rgb(seed))
        (tmp_path / "cpm17" / split / "Labels").mkdir(exist_ok=True)
        labels = {"inst_map": layouts.labels().astype(float)}
        savemat(tmp_path / "cpm17" / split / "Labels" / f"{name}.mat", labels)
    called = CliRunner().invoke(app, ["data", "check", str(tmp_path / "cpm17"), "--as", "cpm17"])
    assert isinstance(called.exception, UsageError)
    assert (
        "DOUBLED            test/image_00 (test) and train/image_00 (train) have the same pixels" in called.stdout
    )
    assert (
        "published          cpm17: 3 of 64 images (train 2 of 32, test 1 of 32); 9 of 7,570 nuclei"
        in called.stdout
    )
    assert "MISSING            image_02 (train)" in called.stdout
    assert called.stdout.rstrip().endswith("NOT as published")


def test_images_of_two_splits_may_have_one_name_and_keep_it_apart(tmp_path: Path) -> None:
    layouts.mat(tmp_path)
    shutil.copytree(tmp_path / "Train", tmp_path / "Test")
    data = load_dataset(tmp_path)
    assert data.ids == ("test/one", "train/one")
    assert [image.id for image in data] == list(data.ids)
    assert data.select(split="test").ids == ("test/one",)
    shutil.copytree(tmp_path / "Train", tmp_path / "Train again")
    with pytest.raises(UsageError, match="two images are called train/one"):
        load_dataset(tmp_path)


def test_folders_of_splits_may_each_be_plain_folders_of_images(tmp_path: Path) -> None:
    for split, name in (("train", "TCGA-A7-A13E-01Z"), ("test_same", "TCGA-E2-A1B5-01Z")):
        layouts.save(tmp_path / split / f"images/{name}.png", layouts.rgb())
        layouts.save(tmp_path / split / f"labels/{name}.png", layouts.labels().astype(np.uint16))
    comparison = check_dataset(tmp_path, like="kumar").published
    assert comparison is not None
    assert comparison.splits == {"train": (1, 16), "test": (1, 14)}
    assert comparison.misplaced == []
    assert len(comparison.doubled) == 1
    assert len(comparison.missing) == 28
    with pytest.raises(UsageError, match="no labelled images"):
        check_dataset(tmp_path / "train" / "images", like="kumar")


def test_the_report_holds_the_comparison_and_an_unknown_set_is_named(tmp_path: Path) -> None:
    layouts.pannuke(tmp_path, classes=5)
    report = check_dataset(tmp_path, like="pannuke")
    written = json.loads(report.as_json())["published"]
    assert written["splits"]["fold1"] == [2, 2656]
    assert written["agrees"] is False
    assert written["missing"][0] == "2,654 of the 2,656 images of fold1"
    # The three folds that are written here hold the same two images.
    assert len(written["doubled"]) == 2
    assert check_dataset(tmp_path).published is None
    with pytest.raises(UsageError, match="Did you mean kumar"):
        check_dataset(tmp_path, like="kumarr")


def test_the_lists_are_as_long_as_their_splits_and_name_each_image_once() -> None:
    for known in PUBLISHED.values():
        assert {split: len(set(names)) for split, names in known.lists.items()} in (dict(known.splits), {})
    kumar = PUBLISHED["kumar"].lists
    assert not set(kumar["train"]) & set(kumar["test"])
    assert np.sum(list(PUBLISHED["pannuke"].splits.values())) == 7_901
