"""Finding a model by name or file, and saying what is wrong where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.tiles import one_tile, scene
from wsi_nuc.errors import ModelError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import check_geometry
from wsi_nuc.models.classical import builtin
from wsi_nuc.models.registry import MODELS, describe, load_model, model_spec
from wsi_nuc.types import Box


@pytest.mark.parametrize("name", list(MODELS))
def test_every_entry_has_a_sound_spec_and_a_line(name: str) -> None:
    spec = model_spec(name)
    check_geometry(spec)
    assert len(spec.weights_sha256) == 64
    assert any(line.startswith(name) for line in describe())


def test_the_loaded_model_has_the_spec_that_planning_saw() -> None:
    assert load_model("classical").spec == model_spec("classical")


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="abcdeilstuv-", min_size=1, max_size=12).filter(lambda name: name not in MODELS))
def test_any_unknown_name_is_a_model_error_with_the_choice(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert caught.value.exit_code == 4
    assert "classical" in caught.value.remedy


def test_a_slip_of_the_pen_is_met_with_the_nearest_name() -> None:
    with pytest.raises(ModelError, match="nearest is 'classical'"):
        load_model("clasical")


def test_a_saved_model_computes_what_the_built_in_one_does(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    builtin.save(path)
    batch = one_tile(scene(2, 200), Box(20, 20, 180, 180), 20)
    (ours, _), (theirs, _) = (predict(load_model(which), batch) for which in ("classical", str(path)))
    assert len(ours) > 5
    assert np.array_equal(ours.xy, theirs.xy)
    assert np.array_equal(ours.class_probs, theirs.class_probs)
    assert model_spec(str(path)).weights_sha256 != model_spec("classical").weights_sha256
    assert model_spec(str(path)) == load_model(str(path)).spec


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    from wsi_nuc.models.weights import save_checkpoint

    path = tmp_path / "other.safetensors"
    header = {"architecture": "clasical", "classes": ["a"], "mpp": 0.5}
    save_checkpoint(path, {"x": np.zeros(1)}, header)
    with pytest.raises(ModelError, match=r"'clasical' is unknown.*nearest is 'classical'"):
        load_model(str(path))


def test_importing_the_registry_is_cheap() -> None:
    heavy = ("torch", "cv2", "scipy", "safetensors")
    code = f"import sys, wsi_nuc.models.registry; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
