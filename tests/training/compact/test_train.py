"""Training of the compact model: it learns, reads its images once, and writes a file that runs."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.models.compact_nets import NET
from tests.training.compact.test_crops import disks
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.compact.config import CompactTrainConfig
from wsi_nuc.training.compact.recipe import rate
from wsi_nuc.training.events import StepDone
from wsi_nuc.training.loop import TrainingError
from wsi_nuc.training.registry import load_train_config, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("disks")
    for kind in ("images", "labels", "types"):
        (root / kind).mkdir()
    for i in range(3):
        image = disks(i)
        assert image.instances is not None
        assert image.types is not None
        cv2.imwrite(str(root / "images" / f"d{i}.png"), image.rgb[:, :, ::-1])
        cv2.imwrite(str(root / "labels" / f"d{i}.png"), image.instances.astype(np.uint16))
        types = np.append(0, image.types + 1)[image.instances]
        cv2.imwrite(str(root / "types" / f"d{i}.png"), types.astype(np.uint8))
    (root / "dataset.json").write_text('{"classes": ["a", "b"], "mpp": 0.25, "trains_released": true}')
    return root


def config(out: Path, images: Path, **changes: object) -> CompactTrainConfig:
    given: dict[str, object] = {
        "out": out, "classes": ["a", "b"], "net": NET, "steps": 4, "batch": 2, "report_every": 2, "warmup": 1,
        "data": {"train": [{"path": images, "images": ["d0", "d1"]}], "workers": 0},
        "crop": {"size_px": 128}, "precision": "fp32", "device": "cpu", "use": {"tile_px": 256},
        "threads": 1,
    }  # fmt: skip
    return CompactTrainConfig.model_validate(given | changes)


def test_images_are_read_once(tmp_path: Path, data: Path) -> None:
    """The images of the training also serve to choose the cuts, so the files are not read again."""
    copy = shutil.copytree(data, tmp_path / "data")

    def remove(event: object) -> None:
        if isinstance(event, StepDone):
            shutil.rmtree(copy, ignore_errors=True)

    sources = {"train": [{"path": copy, "images": ["d0", "d1"]}], "validation": [{"path": copy, "images": ["d2"]}]}
    made = train(config(tmp_path / "out", copy, data=sources | {"workers": 0}), remove)
    assert not copy.exists()
    assert 0 <= open_checkpoint(made).info.details["metrics"]["pq"] <= 1


def test_what_steers_a_training_may_change_on_the_way(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path, data, steps=2))
    file = train(config(tmp_path, data, steps=4, lr=1e-4))
    rows = (tmp_path / "compact" / "curves.csv").read_text().splitlines()
    assert len(rows) == 3
    assert open_checkpoint(file).info.details["training_steps"] == 4


def test_the_file_knows_its_training_data_and_runs(tmp_path: Path, data: Path) -> None:
    file = train(config(tmp_path, data, steps=2))
    info = open_checkpoint(file).info
    assert info.details["training_data"][0]["trains_released"] is True
    assert set(info.details["domain"]) == {"density", "red share", "blue share", "contrast", "sharpness"}
    assert load_model(str(file)).spec.classes == ("a", "b")


def test_it_learns(tmp_path: Path, data: Path) -> None:
    """On plain disks of two classes, the loss falls by 40 % or more within a few dozen steps."""
    seen: list[float] = []
    train(
        config(tmp_path, data, steps=60, batch=4, report_every=60, lr=4e-3, ema=0.0),
        lambda event: seen.append(event.loss) if isinstance(event, StepDone) else None,
    )
    assert np.mean(seen[-10:]) < 0.6 * np.mean(seen[:5])


def test_norms_may_stay_as_they_were(tmp_path: Path, data: Path) -> None:
    first = train(config(tmp_path / "first", data, steps=3))
    changes = {"init": first, "keep_norms": True, "loss": {"agreement": 5.0}}
    second = train(config(tmp_path / "second", data, **changes))
    before, after = (open_checkpoint(file).tensors() for file in (first, second))
    statistics = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all((before[name] == after[name]).all() for name in statistics)
    assert any((before[name] != after[name]).any() for name in before)


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path, data: Path) -> None:
    with pytest.raises(TrainingError, match="not a finite number"):
        train(config(tmp_path, data, lr=1e12, clip=0.0, warmup=0, steps=20))


def test_a_head_that_only_dots_train_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match=r"class_hidden belongs to .*train classes"):
        config(tmp_path, data, net=replace(NET, class_hidden=4))


def test_the_rate_rises_stays_and_falls_to_zero(tmp_path: Path, data: Path) -> None:
    plan = config(tmp_path, data, steps=100, warmup=10, decay=0.5)
    rates = [rate(plan, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:50] == [1.0] * 40
    assert all(a > b for a, b in itertools.pairwise(rates[51:]))
    assert rates[100] == 0


def test_the_shipped_configuration_is_complete() -> None:
    root = Path(__file__).parents[3]
    plan = load_train_config(root / "configs" / "default_model.yaml", [], {"out": Path("x")})
    assert isinstance(plan, CompactTrainConfig)
    held_out = {f"train_{i}" for i in range(22, 28)}
    assert set(plan.data.validation[0].images) == held_out
    assert not held_out & set(plan.data.train[0].images)
    assert not any("monuseg" in str(source.path) for source in plan.data.train)


def test_no_image_that_chooses_cuts_is_trained_on() -> None:
    """And the four validation organs of NuInsSeg are in one split only."""
    root = Path(__file__).parents[3]
    plan = load_train_config(root / "configs" / "default_model.yaml", [], {"out": Path("x")})
    assert isinstance(plan, CompactTrainConfig)
    by_split = {str(source.path): source.split for source in plan.data.train if source.split}
    assert by_split == {"nuinsseg": "train", "brca_m2c": "train"}
    assert [source.split for source in plan.data.validation] == ["", "val", "val"]


@pytest.mark.slow
def test_the_networks_are_trained_side_by_side_until_the_time_is_up(tmp_path: Path, data: Path) -> None:
    plan = {
        "family": "compact",
        "data": {
            "train": [{"path": data.name, "images": ["d0", "d1"]}],
            "validation": [{"path": data.name, "images": ["d2"]}],
            "workers": 0,
        },
        "classes": ["a", "b"], "steps": 500, "batch": 2, "report_every": 2, "precision": "fp32", "warmup": 1,
        "crop": {"size_px": 128}, "use": {"tile_px": 256},
    }  # fmt: skip
    file, script = tmp_path / "plan.yaml", Path(__file__).parents[3] / "pipelines" / "train_default.py"
    file.write_text(json.dumps(plan))
    command = [sys.executable, script, "--data", data.parent, "--out", tmp_path / "out", "--config", file]
    command += ["--fresh", "--minutes", "0.1", "--device", "cpu"]
    subprocess.run([*map(str, command)], check=True, timeout=280, capture_output=True)
    steps = [
        int(row.split(",")[1]) for row in (tmp_path / "out" / "compact" / "curves.csv").read_text().split()[1:]
    ]
    assert 0 < steps[-1] < 500
    for name, parameters in (("compact", 3.1e6), ("lite2", 5.4e6), ("large", 8.5e6)):
        made = tmp_path / "out" / f"{name}.safetensors"
        shapes = open_checkpoint(made).info.shapes.values()
        assert sum(int(np.prod(shape)) for shape in shapes) == pytest.approx(parameters, rel=0.03)
        assert load_model(str(made)).spec.classes == ("a", "b")
    rows = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["model", "compact", "lite2", "large"]
