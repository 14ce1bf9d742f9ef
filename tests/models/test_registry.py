"""Finding a model by name or file, and saying what is wrong where there is no such model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.tiles import one_tile, scene
from wsi_nuc.errors import ModelError, UsageError
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import check_geometry
from wsi_nuc.models.classical import build as classical
from wsi_nuc.models.registry import FAMILIES, listed, load_model, model_spec
from wsi_nuc.types import Box

EXAMPLE = Path(__file__).parent / "example_family"
MODELS = ("default", "classical")


@pytest.mark.parametrize("name", MODELS)
def test_every_entry_has_a_sound_spec_and_a_line(name: str) -> None:
    spec = model_spec(name)
    check_geometry(spec)
    assert len(spec.weights_sha256) == 64
    assert [model.classes for model in listed() if model.name == name] == [spec.classes]


def test_the_loaded_model_has_the_spec_that_planning_saw() -> None:
    assert load_model("classical").spec == model_spec("classical")


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="abcdeilstuv-", min_size=1, max_size=12).filter(lambda name: name not in FAMILIES))
def test_any_unknown_name_is_a_model_error_with_the_choice(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert caught.value.exit_code == 4
    assert "classical" in caught.value.remedy


def test_a_slip_of_the_pen_is_met_with_the_nearest_name() -> None:
    with pytest.raises(ModelError, match="Did you mean classical"):
        load_model("clasical")


def test_a_saved_model_computes_what_the_built_in_one_does(tmp_path: Path) -> None:
    path = tmp_path / "saved.safetensors"
    classical.save(path)
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
    with pytest.raises(ModelError, match=r"'clasical' cannot be used here.*Did you mean classical"):
        load_model(str(path))


def test_importing_the_registry_is_cheap() -> None:
    heavy = ("torch", "cv2", "scipy", "safetensors")
    code = f"import sys, wsi_nuc.models.registry; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def package(folder: Path, name: str, version: str, module: str, code: str, family: str = "") -> None:
    """A package with a family, as pip installs it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n")
    (info / "entry_points.txt").write_text(f"[wsi_nuc.models]\n{family or name} = {module}\n")
    (folder / f"{module}.py").write_text(code)


def test_a_family_of_another_package_is_listed_and_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    (example,) = (model for model in listed() if model.name == "example-labelmaps")
    assert example.package == "example-labelmaps 0.3, MIT"
    assert example.classes == ("large", "small")
    assert not example.problem
    assert load_model("example-labelmaps", options={"brightest": 90}).spec == model_spec("example-labelmaps")
    with pytest.raises(UsageError, match=r"inference\.brightness.*Did you mean brightest"):
        model_spec("example-labelmaps", {"brightness": 90})


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no licence key')", "RuntimeError: no licence key"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("ABOUT = 'x'", "lacks OPTIONS"),
        ("ABOUT, OPTIONS = 'x', None", "lacks load and load_file"),
    ],
)
def test_a_broken_family_is_named_and_never_breaks_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    package(tmp_path, "broken-family", "1.2", "a_broken_family", code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_broken_family", raising=False)
    models = {model.name: model for model in listed()}
    assert said in models["broken-family"].problem
    assert "broken-family 1.2" in models["broken-family"].problem
    assert not any(models[name].problem for name in MODELS)
    assert load_model("classical").spec == model_spec("classical")
    with pytest.raises(ModelError, match=said):
        load_model("broken-family")


def test_a_family_that_cannot_say_what_it_finds_is_named_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "ABOUT, OPTIONS, load = 'x', None, print\ndef spec(options): raise RuntimeError('no licence key')"
    package(tmp_path, "mute-family", "1.2", "a_mute_family", code)
    monkeypatch.syspath_prepend(tmp_path)
    models = {model.name: model for model in listed()}
    assert "mute-family 1.2" in models["mute-family"].problem
    assert "cannot say what it finds (RuntimeError: no licence key)" in models["mute-family"].problem
    assert not any(models[name].problem for name in MODELS)


def test_two_families_of_one_name_are_refused_with_both_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for letter, version in (("a", "1"), ("b", "2")):
        code = "ABOUT, OPTIONS, load = '', None, print"
        package(tmp_path / letter, f"twice-{letter}", version, f"twice_{letter}", code, family="twice")
        monkeypatch.syspath_prepend(tmp_path / letter)
    with pytest.raises(ModelError, match=r"two packages have it: twice-a 1.* and twice-b 2"):
        load_model("twice")


def test_a_family_with_the_name_of_one_of_ours_never_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "classical", "9", "another_classical", "raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_model("classical").spec.name == "classical"
    assert any("has a family of that name" in model.problem for model in listed())
