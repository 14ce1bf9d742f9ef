"""Models from files run like the named ones; `tests/faults/test_models.py` has those that do not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command import answers, manifest, wsi_nuc
from wsi_nuc.models.classical import build as classical


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "own.safetensors"
    classical.save(path)
    return path


def test_a_model_from_a_file_runs_and_its_hash_is_recorded(weights: Path, small: Path, tmp_path: Path) -> None:
    import hashlib

    done = wsi_nuc("run", small, "--out", tmp_path / "out", "--scheduler", "serial", "--model", weights, "--json")
    assert done.returncode == 0, done.stderr
    (answer,) = answers(done)
    assert answer["nuclei"] > 0
    recorded = manifest(answer["store"])["made_from"]["weights_sha256"]
    assert recorded == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_models_are_listed() -> None:
    done = wsi_nuc("models")
    assert done.returncode == 0
    assert "classical" in done.stdout
