"""What every training recipe promises. A new recipe is one more row here."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.models.compact_nets import NET
from tests.training.tiny import draw, tiny_config
from wsi_nuc.errors import UsageError
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.config import TrainingConfig
from wsi_nuc.training.events import Event, StepDone
from wsi_nuc.training.registry import RECIPES, load_train_config, recipe, train

STAGE = {"batch": 2, "epochs": 2, "lr": 1e-3, "ema": 0.9, "schedule": "cosine", "clip": 1.0}
PROMPTNUCSEG = tiny_config(Path("out"), Path("data"), train={"together": STAGE}, prompter={"dropout": 0.2})
COMPACT = {
    "net": asdict(NET), "steps": 4, "batch": 2, "report_every": 2, "warmup": 1, "ema": 0.9,
    "crop": {"size_px": 128}, "use": {"tile_px": 256},
}  # fmt: skip

INSTASAM = {
    "frozen": "default", "first": "masks", "steps": 4, "batch": 2, "report_every": 2, "ema": 0.9, "workers": 0,
    "crop": {"size_px": 64}, "use": {"tile_px": 256},
}  # fmt: skip

# Settings with which a training of a few steps takes a second or two.
TINY: dict[str, dict[str, Any]] = {
    "promptnucseg": PROMPTNUCSEG.model_dump(
        include={"prompter", "segmentor", "use", "prompts", "train", "stages", "cuts"}
    ),
    "compact": COMPACT,
    "instasam": INSTASAM,
    "classes": {
        "classes": ["a", "b"], "steps": 4, "batch": 8, "report_every": 2, "hidden": 4, "folds": 2, "views": 1,
    },
}  # fmt: skip


class Killed(BaseException):
    """Nothing catches this, so it acts like a kill."""


@pytest.fixture(scope="module", params=list(RECIPES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nuclei of two classes. A model of one class takes them all for that one."""
    folder = draw(tmp_path_factory.mktemp("data"), images=3)
    (folder / "types").mkdir()
    for file in (folder / "labels").iterdir():
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(folder / "types" / file.name), np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8))
    (folder / "dataset.json").write_text(json.dumps({"mpp": 0.25, "classes": ["a", "b"]}))
    return folder


def settings(family: str, data: Path, out: Path, **changes: object) -> TrainingConfig:
    sources = {"train": [{"path": data}], "validation": [{"path": data}], "workers": 0}
    common = {
        "out": out,
        "classes": ["nucleus"],
        "data": sources,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
    }
    return load_train_config(family, [], common | TINY[family] | changes)


@pytest.fixture(scope="module")
def whole(family: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training from its first step to its last."""
    out = tmp_path_factory.mktemp("whole")
    assert train(settings(family, data, out)) == out / "model.safetensors"
    return out


def steps(config: TrainingConfig, overwrite: bool = False) -> list[StepDone]:
    """Those that a call of `train` makes."""
    seen: list[Event] = []
    train(config, seen.append, overwrite)
    return [event for event in seen if isinstance(event, StepDone)]


def curves(out: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of every stage, without the speed, which differs from call to call."""
    rows = {}
    for file in sorted(out.glob("*/curves.csv")):
        with file.open() as lines:
            rows[file.parent.name] = [
                {name: value for name, value in row.items() if name != "images_per_s"}
                for row in csv.DictReader(lines)
            ]
    return rows


def test_its_name_alone_selects_it(family: str, data: Path, tmp_path: Path) -> None:
    config = settings(family, data, tmp_path)
    assert type(config) is recipe(family).CONFIG
    assert config.family == family


def test_it_leaves_curves_and_a_model_that_runs_and_knows_its_images(family: str, whole: Path, data: Path) -> None:
    rows = curves(whole)
    assert rows
    assert all("lr" in row and any(name.startswith("loss") for name in row) for of in rows.values() for row in of)
    file = whole / "model.safetensors"
    details = open_checkpoint(file).info.details
    last = details["training_data"][-1]  # those before it are of the model that a training went on from
    assert (last["name"], last["images"]) == (data.name, 3)
    assert all(0 <= value <= 1 for name, value in details["metrics"].items() if name in ("pq", "f1"))
    spec = load_model(str(file)).spec
    assert (spec.classes, spec.mpp) == (settings(family, data, whole).classes, 0.25)


@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_after_a_kill_it_goes_on_as_if_nothing_had_been(
    stop_at: int, family: str, whole: Path, data: Path, tmp_path: Path
) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == stop_at:
            raise Killed

    config = settings(family, data, tmp_path)
    with pytest.raises(Killed):
        train(config, kill)
    torch.rand(7)  # in another process the random numbers would be at another place
    file = train(config)
    assert curves(tmp_path) == curves(whole)
    expected, actual = open_checkpoint(whole / "model.safetensors").tensors(), open_checkpoint(file).tensors()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_what_is_done_is_not_done_again_and_other_settings_are_refused(
    family: str, whole: Path, data: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    assert not steps(settings(family, data, out))
    with pytest.raises(UsageError, match=r"other settings of seed.*--overwrite"):
        train(settings(family, data, out, seed=1))
    assert steps(settings(family, data, out, seed=1), overwrite=True)
