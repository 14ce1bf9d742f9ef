"""Which recipe a call of `train` gets, and where its images lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_nuc.errors import UsageError
from wsi_nuc.training.registry import load_train_config

GIVEN = {"out": Path("runs/x"), "classes": ["a"], "data": {"train": [{"path": "here"}]}}


def test_a_file_states_its_family_or_is_for_promptnucseg(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("classes: [a]\n")
    assert load_train_config(file, [], GIVEN).family == "promptnucseg"
    file.write_text("family: compact\nclasses: [a]\n")
    assert load_train_config(file, [], GIVEN).family == "compact"


@pytest.mark.parametrize(
    ("given", "said"), [("compakt", "Did you mean compact"), ("nowhere.yaml", "does not exist")]
)
def test_what_is_neither_file_nor_family_is_refused(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_train_config(given, [], GIVEN)


def test_a_family_in_a_file_that_has_no_recipe_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("family: promptnuc\n")
    with pytest.raises(UsageError, match="Did you mean promptnucseg"):
        load_train_config(file, [], GIVEN)


def test_relative_paths_count_from_the_folder_of_the_data(tmp_path: Path) -> None:
    data = {"folder": tmp_path, "train": [{"path": "a"}, {"path": "/b"}], "validation": [{"path": "c"}]}
    config = load_train_config("compact", [], GIVEN | {"data": data})
    again = load_train_config("compact", [], config.model_dump())
    for images in (config.data, again.data):  # type: ignore[attr-defined]
        assert [source.path for source in images.train] == [tmp_path / "a", Path("/b")]
        assert images.validation[0].path == tmp_path / "c"


def test_dots_are_refused_by_a_family_that_does_not_learn_from_them() -> None:
    with pytest.raises(UsageError, match="--points: compact does not learn from dots"):
        load_train_config("compact", [], GIVEN | {"dots.points": Path("a.csv"), "dots.slide": None})


def test_what_is_missing_is_named_as_the_option_that_gives_it() -> None:
    with pytest.raises(UsageError, match=r"dots\.slide: is missing\. Give --slide or"):
        load_train_config("instasam", [], {"out": Path("o"), "dots.points": Path("a.csv"), "dots.slide": None})
