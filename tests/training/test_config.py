"""The training configuration: unknown keys, contradictions, and the files that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from wsi_nuc.errors import UsageError
from wsi_nuc.training.promptnucseg.config import TrainConfig
from wsi_nuc.training.promptnucseg.published import expanded
from wsi_nuc.training.registry import load_train_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SHIPPED = [file for file in CONFIGS if "stages" in yaml.safe_load(file.read_text())]
PUBLISHED = {"pannuke-123", "pannuke-213", "pannuke-321", "kumar", "cpm17"}


def keys(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return set().union({prefix}, *(keys(inner, f"{prefix}.{key}") for key, inner in value.items()))


def test_every_published_run_has_a_file() -> None:
    assert {file.stem for file in SHIPPED} >= PUBLISHED | {"tiny"}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_file_loads_and_states_every_key(file: Path) -> None:
    config = load_train_config(file, [], {})
    assert config.out.name == file.stem
    given = yaml.safe_load(file.read_text())
    stated, every = keys(expanded(given)), keys(config.model_dump(mode="json"))
    assert every - stated == set()
    assert not keys(expanded({name: given[name] for name in ("recipe", "preset")})) - every


@pytest.mark.parametrize("file", [f for f in SHIPPED if f.stem in PUBLISHED], ids=lambda file: file.stem)
@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_the_sizes_are_an_override(file: Path, size: str) -> None:
    assert load_train_config(file, [f"segmentor.size={size}"], {}).settings().segmentor.size == size


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("prompter.space=3", "unknown key prompter.space. Did you mean space_px"),
        ("train.segmentor.epoch=3", "Did you mean epochs"),
        ("use.negative=3", "Did you mean negatives"),
        ("los.beta=1", "Did you mean loss"),
        ("loss.beta=0", "greater than 0"),
        ("stages=[prompter, prompter]", "each stage once"),
        ("classes=[a, a]", "two classes have one name"),
        ("stages=[segmentor]", r"the only stage is \[together\]"),
        ("prompter.shared_encoder=false", r"segmentor\.size: conv needs prompter\.shared_encoder"),
        ("data.train=[]", "at least 1 item"),
        ("device=tpu", "device"),
    ],
)
def test_mistakes_are_named(assignment: str, said: str) -> None:
    tiny = next(file for file in SHIPPED if file.stem == "tiny")
    with pytest.raises(UsageError, match=said):
        load_train_config(tiny, [assignment], {})


def test_options_win_over_assignments_and_these_over_the_file(tmp_path: Path) -> None:
    tiny = next(file for file in SHIPPED if file.stem == "tiny")
    config = load_train_config(tiny, ["seed=3", "device=cuda"], {"device": "cpu", "out": tmp_path, "init": None})
    assert isinstance(config, TrainConfig)
    assert (config.seed, config.device, config.out) == (3, "cpu", tmp_path)
