"""Classes learned from dots: the nuclei stay the model's, and the classes follow what the dots say."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.training.dots.drawn import multi_points, write_geojson
from wsi_nuc.cli import app
from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.record import DataError, SourceConfig
from wsi_nuc.errors import ModelError, UsageError
from wsi_nuc.evaluation.evaluate import predict_table
from wsi_nuc.models.compact.packaged import checkpoint_of
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.weights import open_checkpoint, save_checkpoint
from wsi_nuc.store.reading import NucleiFile, class_names
from wsi_nuc.training.classes.nuclei import IN, MISSED, NEAR, SECOND, owners
from wsi_nuc.training.events import Event, Noted, StepDone
from wsi_nuc.training.registry import load_train_config, train

COLOURS = {"dark": (70, 40, 120), "red": (140, 55, 95)}
MODEL_KEYS = ("domain", "nucleus_um", "use", "mpp")


def draw(folder: Path, images: int = 4, nuclei: int = 16, size: int = 256, seed: int = 0) -> Path:
    """Discs of two colours with a dot each; all of a class have one colour."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "points"):
        (folder / kind).mkdir(parents=True)
    places = [(x, y) for x in range(32, size, 64) for y in range(32, size, 64)]
    for i in range(images):
        rgb = np.full((size, size, 3), (225, 185, 215), np.uint8)
        rows = ["x,y,class"]
        for n in range(nuclei):
            x, y = (place + int(rng.integers(-12, 13)) for place in places[n])
            name = str(rng.choice(list(COLOURS)))
            cv2.circle(rgb, (x, y), int(rng.integers(8, 11)), COLOURS[name], -1)
            rows.append(f"{x + 0.5},{y + 0.5},{name}")
        cv2.imwrite(str(folder / "images" / f"{i}.png"), rgb[:, :, ::-1])
        (folder / "points" / f"{i}.csv").write_text("\n".join(rows) + "\n")
    about = {"mpp": 0.25, "point_classes": list(COLOURS), "licence": "CC0", "trains_released": False}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def config(out: Path, slide: Path, **changes: Any) -> Any:
    given = {
        "out": out, "dots": {"slide": str(slide), "least_dots": 10}, "device": "cpu", "threads": 1, "steps": 60,
        "report_every": 30, "batch": 64, "hidden": 8, "views": 2, "lr": 0.02,
    }  # fmt: skip
    return load_train_config("classes", [], given | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("data") / "dots")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    seen: list[Event] = []
    return train(config(tmp_path_factory.mktemp("out"), data), seen.append), seen


def test_classes_of_unseen_nuclei_are_those_that_the_dots_taught(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    unseen = draw(tmp_path / "unseen", images=2, seed=7)
    model = load_model(str(trained[0]))
    right = []
    for image in load_images([SourceConfig(path=unseen)], model.spec.classes, 0.25).images:
        table, _ = predict_table(model, image)
        assert image.points_xy is not None
        assert image.point_types is not None
        nearest = ((table.prompt_xy[:, None] - image.points_xy) ** 2).sum(2).argmin(1)
        right += (table.class_id == image.point_types[nearest]).tolist()
    assert len(right) > 20
    assert np.mean(right) > 0.95


def test_the_nuclei_stay_those_of_the_model(trained: tuple[Path, Any], data: Path) -> None:
    made, given = open_checkpoint(trained[0]), checkpoint_of("default")
    before, after = given.tensors(), made.tensors()
    kept = {name for name in before if not name.startswith("class_head")}
    assert kept == {name for name in after if not name.startswith("class_head")}
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert made.info.sha256 != given.info.sha256
    assert [made.info.details[key] for key in MODEL_KEYS] == [given.info.details[key] for key in MODEL_KEYS]
    (image,) = load_images([SourceConfig(path=data, images=("0",))], tuple(COLOURS), 0.25).images
    own, new = (predict_table(load_model(name), image)[0] for name in ("default", str(trained[0])))
    for name in ("xy", "offsets", "score", "prompt_xy"):
        assert np.array_equal(getattr(own, name), getattr(new, name)), name


def test_the_file_states_what_it_comes_from(trained: tuple[Path, Any], data: Path) -> None:
    details = open_checkpoint(trained[0]).info.details
    before = checkpoint_of("default").info.details["training_data"]
    assert details["training_data"][:-1] == before
    last = details["training_data"][-1]
    assert (last["name"], last["images"], last["learned"]) == (data.name, 4, "classes")
    assert last["trains_released"] is False
    assert details["based_on"] == checkpoint_of("default").info.sha256
    assert details["classes"] == sorted(COLOURS)
    assert details["metrics"]["held_out_f1"] > 0.9


def test_it_says_how_many_dots_it_could_use_and_how_long_it_takes(trained: tuple[Path, list[Event]]) -> None:
    said = [event.message for event in trained[1] if isinstance(event, Noted)]
    inside = next(int(line.split(": ")[1]) for line in said if line.startswith(IN))
    assert 50 < inside <= 64
    assert any(line.startswith("nuclei to learn from: dark ") for line in said)
    looks = [event for event in trained[1] if isinstance(event, StepDone) and event.stage == "looking"]
    assert [event.step for event in looks] == list(range(1, 9))
    assert all(event.loss is None and event.seconds_left >= 0 for event in looks)


def test_a_head_that_was_learned_can_be_learned_anew(
    trained: tuple[Path, Any], data: Path, tmp_path: Path
) -> None:
    again = train(config(tmp_path, data, model=str(trained[0]), hidden=4, steps=2, views=1))
    details = open_checkpoint(again).info.details
    assert details["net"]["class_hidden"] == 4
    assert details["training_data"][-1] == details["training_data"][-2]


@pytest.mark.parametrize("stop", [30, 45])
def test_a_kill_while_heads_are_learned_changes_no_byte(
    stop: int, trained: tuple[Path, Any], data: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, StepDone) and (event.stage, event.step) == ("classes", stop):
            raise Killed

    with pytest.raises(Killed):
        train(config(tmp_path, data), kill)
    assert train(config(tmp_path, data)).read_bytes() == trained[0].read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dots": None}, "--points and --slide"),
        ({"data": {"train": [{"path": "here"}]}}, "--points and --slide"),
        ({"mpp": 0.5}, "works at 0.25"),
        ({"classes": ["dark", "blue"]}, "red"),
        ({"least_dots_of_class": 200}, "dark [0-9]+, red [0-9]+; a class needs 200"),
    ],
)
def test_what_cannot_be_right_is_said_before_anything_is_learned(
    changes: dict[str, Any], said: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        train(config(tmp_path, data, **changes))
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_one_class_is_nothing_to_tell_apart(data: Path, tmp_path: Path) -> None:
    dots = {"slide": str(data), "least_dots": 10, "classes": {"dark": "nucleus", "red": "nucleus"}}
    with pytest.raises(UsageError, match="nothing to tell apart"):
        train(config(tmp_path, data, dots=dots))


def test_a_class_with_one_dot_is_named(data: Path, tmp_path: Path) -> None:
    copy = draw(tmp_path / "data")
    file = copy / "points" / "0.csv"
    file.write_text(file.read_text().replace("dark", "odd", 1))
    (copy / "dataset.json").write_text(json.dumps({"mpp": 0.25, "point_classes": ["dark", "odd", "red"]}))
    with pytest.raises(DataError, match=r"odd 1; a class needs 10.*map it to another one"):
        train(config(tmp_path / "out", copy))


def test_a_model_without_such_a_head_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"classical.*no class head.*Give default"):
        train(config(tmp_path, data, model="classical"))
    other = tmp_path / "other.safetensors"
    header = {"architecture": "promptnucseg", "classes": ["a"], "mpp": 0.25, "training_data": [], "metrics": {}}
    save_checkpoint(other, {"weight": np.zeros(2, np.float32)}, header | {"normalisation": {}})
    with pytest.raises(ModelError, match=r"family promptnucseg has no class head.*train compact"):
        train(config(tmp_path, data, model=str(other)))


def test_only_classes_learns_for_a_given_model(tmp_path: Path) -> None:
    given = {"out": tmp_path, "classes": ["a"], "data": {"train": [{"path": "here"}]}, "model": "default"}
    with pytest.raises(UsageError, match="model"):
        load_train_config("compact", [], given)


@given(st.integers(0, 2**31), st.integers(0, 12), st.integers(0, 12))
def test_every_point_is_counted_once_and_no_nucleus_has_two(seed: int, points: int, nuclei: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((64, 64), np.int32)
    centres = rng.uniform(4, 60, (nuclei, 2))
    for n, (x, y) in enumerate(centres):
        cv2.circle(labels, (int(x), int(y)), 4, n + 1, -1)
    xy = rng.uniform(0, 64, (points, 2))
    owner, counts = owners(xy, labels, centres, 6.0)
    owned = owner[owner >= 0]
    assert len(set(owned.tolist())) == len(owned) == counts[IN] + counts[NEAR]
    assert sum(counts[what] for what in (IN, NEAR, MISSED, SECOND)) == points
    holder = labels[xy[:, 1].astype(int), xy[:, 0].astype(int)] - 1
    assert all(own in (-1, held) for own, held in zip(owner, holder, strict=True) if held >= 0)
    lone = (holder < 0) & (owner >= 0)
    assert (np.hypot(*(xy[lone] - centres[owner[lone]]).T) <= 6.0).all()


def test_from_a_file_of_dots_and_a_slide_to_a_result_with_their_classes(tmp_path: Path) -> None:
    """As on the command line: dots of two classes, a trained file, and a run with it."""
    torch.set_num_threads(1)
    images = draw(tmp_path / "images", images=4)
    tiles = [cv2.imread(str(images / "images" / f"{i}.png")) for i in range(4)]
    slide = tmp_path / "slide.png"
    cv2.imwrite(str(slide), np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])]))
    xy, names = [], []
    for i in range(4):
        with (images / "points" / f"{i}.csv").open() as file:
            for row in csv.DictReader(file):
                xy.append([float(row["x"]) + 256 * (i % 2), float(row["y"]) + 256 * (i // 2)])
                names.append(row["class"])
    points = write_geojson(tmp_path / "dots.geojson", multi_points(xy, names))
    out = tmp_path / "out"
    small = "steps=60 batch=64 hidden=8 views=1 lr=0.02 dots.mpp=0.25 dots.least_dots=10 dots.patch_px=256"
    values = [*small.split(), "dots.classes={dark: tumour cell, red: stroma}"]
    command = f"train classes --points {points} --slide {slide} --model default --out {out} --device cpu".split()
    command += [word for value in values for word in ("--set", value)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(out / "model.safetensors")
    assert "nuclei to learn from: " in done.stderr
    command = f"run {slide} --out {tmp_path} --model {done.stdout.strip()} --mpp 0.25 --device cpu".split()
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.stderr
    result = tmp_path / "slide.png.zarr"
    assert class_names(result) == ("tumour cell", "stroma")
    with NucleiFile(result) as nuclei:
        tables = [nuclei.points(group) for group in range(nuclei.groups)]
    of_class = np.concatenate([table.class_id for table in tables])
    places = np.concatenate([table.xy_l0 for table in tables])
    nearest = ((places[:, None] - np.array(xy)) ** 2).sum(2).argmin(1)
    said = np.array(["tumour cell", "stroma"])[of_class]
    meant = np.array([{"dark": "tumour cell", "red": "stroma"}[name] for name in names])[nearest]
    assert len(said) > 40
    assert np.mean(said == meant) > 0.95
