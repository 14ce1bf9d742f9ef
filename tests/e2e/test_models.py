"""Models from files: the right one runs, a wrong one is refused before any slide is read, nothing is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.e2e.command import answers, manifest, wsi_nuc
from wsi_nuc.models.classical import builtin


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    builtin.save(path)
    return path


def test_a_model_from_a_file_runs_and_its_hash_is_recorded(weights: Path, small: Path, tmp_path: Path) -> None:
    import hashlib

    done = wsi_nuc("run", small, "--out", tmp_path / "out", "--scheduler", "serial", "--model", weights, "--json")
    assert done.returncode == 0, done.stderr
    (told,) = answers(done)
    assert told["nuclei"] > 0
    recorded = manifest(told["store"])["made_from"]["weights_sha256"]
    assert recorded == hashlib.sha256(weights.read_bytes()).hexdigest()


def _header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("deed", ["missing key", "extra key", "shape", "nan"])
def test_wrong_weights_are_listed_before_any_slide_is_read(deed: str, weights: Path, tmp_path: Path) -> None:
    state, header = load_file(weights), _header(weights)
    name = sorted(state)[0]
    if deed == "missing key":
        del state[name]
    elif deed == "extra key":
        state["surplus.weight"] = np.zeros(3, np.float32)
    elif deed == "shape":
        state[name] = np.zeros((7, 7), np.float32)
    else:
        state[name] = np.full_like(state[name], np.nan)
    save_file(state, weights, header)
    done = wsi_nuc("run", tmp_path / "no-such-slide.svs", "--out", tmp_path / "out", "--model", weights)
    assert done.returncode == 4, done.stderr
    assert str(weights) in done.stderr
    assert ("surplus.weight" if deed == "extra key" else name) in done.stderr
    assert "no-such-slide" not in done.stderr


class _Gadget:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_gadget_is_refused_and_not_executed(tmp_path: Path) -> None:
    mark, file = tmp_path / "executed", tmp_path / "model.pth"
    file.write_bytes(pickle.dumps({"model": _Gadget(mark)}))
    done = wsi_nuc("run", tmp_path / "no-such-slide.svs", "--out", tmp_path / "out", "--model", file)
    assert done.returncode == 4, done.stderr
    assert str(file) in done.stderr
    assert not mark.exists()


def test_models_are_listed() -> None:
    done = wsi_nuc("models")
    assert done.returncode == 0
    assert "classical" in done.stdout
