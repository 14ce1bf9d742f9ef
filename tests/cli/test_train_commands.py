"""`train`, `data check` and `models` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch
from typer.testing import CliRunner

from tests.models.nets import official_sam
from tests.training.tiny import draw, tiny_config
from wsi_nuc.cli import app
from wsi_nuc.errors import INTERRUPTED, ModelError, UsageError

runner = CliRunner()


def call(*arguments: object) -> str:
    done = runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def fails(*arguments: object) -> BaseException | None:
    return runner.invoke(app, [str(a) for a in arguments]).exception


def test_train_then_show_then_evaluate(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = draw(tmp_path / "data")
    file = tmp_path / "own.yaml"
    file.write_text(tiny_config(tmp_path / "ignored", data).model_dump_json())
    out = tmp_path / "out"
    done = runner.invoke(app, ["train", str(file), "--out", str(out), "--set", "train.together.epochs=1"])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(out / "model.safetensors")
    assert "together epoch 1/1: loss" in done.stderr
    shown = json.loads(call("models", "show", out / "model.safetensors", "--json"))
    assert shown["architecture"] == "promptnucseg"
    assert shown["training_data"][0]["images"] == 2
    assert "parameters" in call("models", "show", out / "model.safetensors")
    assert "Overview" in call("evaluate", data, "--model", out / "model.safetensors", "-q", "--device", "cpu")


def test_models_lists_by_default() -> None:
    assert call("models") == call("models", "list")
    assert "classical" in call("models")


def test_conversion_names_what_does_not_fit_and_checks_its_options(tmp_path: Path) -> None:
    strange = tmp_path / "strange.pth"
    torch.save({"a.weight": torch.zeros(2)}, strange)
    assert isinstance(fails("models", "convert", strange, "--out", tmp_path / "x.safetensors"), ModelError)
    wrong = fails("models", "convert", strange, "--out", tmp_path / "x.pth")
    assert isinstance(wrong, UsageError)
    near = fails("models", "convert", strange, "--out", tmp_path / "x.safetensors", "--set", "negative=1")
    assert "Did you mean negatives" in str(near)
    assert not (tmp_path / "x.safetensors").exists()


def test_an_official_file_converts_and_says_what_it_is(tmp_path: Path) -> None:
    torch.save(official_sam("vit_mini").state_dict(), tmp_path / "sam.pth")
    out = tmp_path / "sam.safetensors"
    said = call(
        "models", "convert", tmp_path / "sam.pth", "--out", out, "--classes", "a, b", "--set", "negatives=0"
    )
    assert "promptnucseg-part" in said
    shown = json.loads(call("models", "show", out, "--json"))
    assert (shown["classes"], shown["use"]["negatives"], shown["segmentor"]["size"]) == (["a", "b"], 0, "vit_mini")


def test_data_check_reports_and_fails_on_a_broken_image(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", images=2)
    sheet = tmp_path / "sheet.png"
    assert "images             2" in call("data", "check", data, "--sheet", sheet)
    assert cv2.imread(str(sheet)) is not None
    assert json.loads(call("data", "check", data, "--json"))["images"] == 2
    (data / "images" / "0_0.png").write_bytes(b"no picture")
    broken = fails("data", "check", data)
    assert isinstance(broken, UsageError)
    assert "1 images cannot be used" in str(broken)


@pytest.mark.parametrize("arguments", [["train", "--set", "sed=1"], ["evaluate", "--set", "devise=cpu"]])
def test_an_unknown_key_names_the_nearest(arguments: list[str]) -> None:
    assert "Did you mean" in str(fails(*arguments))


def test_a_stopped_training_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_nuc.training.registry.train", stopped)
    file = tmp_path / "own.yaml"
    file.write_text(tiny_config(tmp_path / "out", draw(tmp_path / "data")).model_dump_json())
    done = runner.invoke(app, ["train", str(file)])
    assert done.exit_code == INTERRUPTED
    assert "same command goes on" in done.stderr
