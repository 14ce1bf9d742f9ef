"""One call, slides with settings and names of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK, USAGE, UsageError
from wsi_nuc.run.request import SlideRequest
from wsi_nuc.run.session import run_session
from wsi_nuc.synth import SynthSpec, write_slide


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("slides")
    for seed in (1, 2):
        write_slide(folder / f"{seed}.svs", SynthSpec(size=512, mpp=0.25, seed=seed))
    return folder / "1.svs", folder / "2.svs"


def _config(out: Path) -> RunConfig:
    return RunConfig(out=out, scheduler="serial", region_size=512)


def test_each_slide_runs_with_its_own_settings_under_its_own_name(
    slides: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = map(str, slides)
    requests = [SlideRequest(one, "first", {"mpp": 0.3}), SlideRequest(two, settings={"tissue": "none"})]
    assert [r.exit_code for r in run_session(_config(tmp_path / "together"), requests)] == [OK, OK]
    alone = _config(tmp_path / "alone")
    list(run_session(alone.model_copy(update={"mpp": 0.3}), [one]))
    list(run_session(alone.model_copy(update={"tissue": "none"}), [two]))
    for name, same in (("first", "1.svs"), ("2.svs", "2.svs")):
        got, expected = (
            json.loads((tmp_path / folder / f"{store}.zarr" / "manifest.json").read_text())["digest"]
            for folder, store in (("together", name), ("alone", same))
        )
        assert got == expected


def test_a_name_is_never_changed_to_make_room_for_another_slide(slides: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = map(str, slides)
    (first,) = run_session(_config(tmp_path), [SlideRequest(one, "same")])
    (second,) = run_session(_config(tmp_path), [SlideRequest(two, "same")])
    assert first.exit_code == OK
    assert second.exit_code == USAGE
    assert "holds the result of another slide" in second.error
    assert [path.name for path in tmp_path.glob("*.zarr")] == ["same.zarr"]


def test_settings_that_cannot_be_are_told_before_anything_runs(slides: tuple[Path, Path], tmp_path: Path) -> None:
    requests = [SlideRequest(str(slides[0])), SlideRequest(str(slides[1]), settings={"mpp": -1})]
    with pytest.raises(UsageError, match=r"2\.svs.*mpp"):
        list(run_session(_config(tmp_path), requests))
    assert not list(tmp_path.glob("*.zarr"))
