"""Models that cannot be used: refused before a slide is read, or blamed on the tile that they fail on."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.e2e.command import wsi_nuc
from tests.faults.one_run import assert_told, published, run_one
from tests.models import instasam_nets
from tests.models.compact_nets import tiny_net
from tests.models.compact_nets import tiny_settings as compact_settings
from tests.models.nets import tiny_settings
from wsi_nuc.errors import MODEL, SLIDES, ModelError
from wsi_nuc.models.classical import build as classical
from wsi_nuc.models.compact.build import save_net as save_compact
from wsi_nuc.models.instasam.build import save_net as save_instasam
from wsi_nuc.models.promptnucseg.build import save_net as save_promptnucseg
from wsi_nuc.models.promptnucseg.convert import Target, convert
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.weights import KEY, read_info

FAMILIES = ("classical", "compact", "instasam", "promptnucseg")
ABOUT = {"training_data": [], "metrics": {}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for every family, FAMILY.safetensors."""
    folder = tmp_path_factory.mktemp("models")
    classical.save(folder / "classical.safetensors")
    save_compact(folder / "compact.safetensors", tiny_net(), replace(compact_settings(), mpp=0.5), ABOUT)
    save_instasam(folder / "instasam.safetensors", instasam_nets.tiny_net(), instasam_nets.tiny_settings(), ABOUT)
    torch.manual_seed(0)
    save_promptnucseg(folder / "promptnucseg.safetensors", PromptNucSegNet(tiny_settings()), tiny_settings())
    return folder


def rewritten(source: Path, target: Path, header: dict[str, Any] | None = None, **tensors: Any) -> Path:
    """A copy with other header entries and tensors; None leaves a tensor out."""
    state, details = {**load_file(source), **tensors}, {**read_info(source).details, **(header or {})}
    kept = {name: np.ascontiguousarray(array) for name, array in state.items() if array is not None}
    save_file(kept, target, {KEY: json.dumps(details)})
    return target


def refused_before_a_slide_is_read(model: Path, out: Path) -> str:
    with pytest.raises(ModelError) as caught:
        run_one(Path("no-such-slide.svs"), out, model=str(model))
    assert caught.value.exit_code == MODEL
    assert caught.value.subject == str(model)
    assert published(out) == []
    return caught.value.cause


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("deed", ["missing key", "surplus key", "shape", "classes"])
def test_row_29_checkpoint_that_does_not_fit(family: str, deed: str, sound: Path, tmp_path: Path) -> None:
    source, wrong = sound / f"{family}.safetensors", tmp_path / "wrong.safetensors"
    name = sorted(read_info(source).shapes)[0]
    if deed == "missing key":
        rewritten(source, wrong, **{name: None})
    elif deed == "surplus key":
        rewritten(source, wrong, **{"surplus.weight": np.zeros(3, np.float32)})
    elif deed == "shape":
        rewritten(source, wrong, **{name: np.zeros((7, 7), np.float32)})
    else:
        rewritten(source, wrong, {"classes": ["a", "b", "c", "d", "e"]})
    words = {
        "missing key": f"1 missing: {name}",
        "surplus key": "1 unexpected: surplus.weight",
        "shape": f"{name} (7, 7) instead of",
        "classes": "class_weights (4, 4) instead of (5, 4)" if family == "classical" else "its header names 5",
    }
    assert words[deed] in refused_before_a_slide_is_read(wrong, tmp_path / "out")


@pytest.mark.parametrize("what", ["NaN weights", "a flipped sign of a variance", "outputs that overflow"])
def test_row_30_numbers_that_are_not_finite(what: str, slide: Path, sound: Path, tmp_path: Path) -> None:
    source, bad = sound / "compact.safetensors", tmp_path / "bad.safetensors"
    state = load_file(source)
    if what == "outputs that overflow":
        convolutions = {name: np.full_like(array, 6e4) for name, array in state.items() if array.ndim == 4}
        result = run_one(slide, tmp_path / "out", model=str(rewritten(source, bad, **convolutions)))
        assert_told(result, SLIDES, "tile 0 at level-0", "raw outputs are not finite numbers")
        assert published(tmp_path / "out") == []
        return
    name = next(name for name in state if name.endswith("running_var"))
    first = np.nan if what == "NaN weights" else -state[name][0]
    rewritten(source, bad, **{name: np.concatenate([[first], state[name][1:]]).astype(np.float16)})
    assert name in refused_before_a_slide_is_read(bad, tmp_path / "out")


class _Gadget:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.marker,)


@pytest.mark.parametrize("form", ["zip", "pickle", "pickle called safetensors"])
def test_row_31_pickle_gadget(form: str, tmp_path: Path) -> None:
    marker, gadget = tmp_path / "executed", {"model": {"w": torch.zeros(1)}, "x": _Gadget(tmp_path / "executed")}
    file = tmp_path / ("model.safetensors" if "safetensors" in form else "model.pth")
    if form == "zip":
        torch.save(gadget, file)
    else:
        file.write_bytes(pickle.dumps(gadget))
    refused_before_a_slide_is_read(file, tmp_path / "out")
    if form == "zip":
        done = wsi_nuc("run", "no-such-slide.svs", "--out", tmp_path / "out", "--model", file)
        assert done.returncode == MODEL, done.stderr
        assert str(file) in done.stderr
    with pytest.raises(ModelError) as caught:
        convert([file], tmp_path / "out.safetensors", Target())
    assert caught.value.exit_code == MODEL
    assert not marker.exists()
    # The gadget works: this is what was avoided above.
    pickle.loads(pickle.dumps(gadget))
    assert marker.exists()
