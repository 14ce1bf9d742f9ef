"""One slide never counts as two, even if the plan could not see that two files are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cohort.lists import copy, planned, write_list
from wsi_nuc.cohort import records
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan
from wsi_nuc.cohort.recording import SlideOutcome
from wsi_nuc.cohort.shards import Only, Shard
from wsi_nuc.cohort.state import states
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.errors import SLIDES


def _cohort(tmp_path: Path, *names: str) -> tuple[CohortFolder, Plan]:
    lines = [f"{name}.svs,{name},P{i}" for i, name in enumerate(names)]
    return planned(tmp_path / "cohort", write_list(tmp_path / "list.csv", "slide,id,patient", *lines))


def _run(folder: CohortFolder, retry: bool = True, **options: object) -> dict[str, SlideOutcome]:
    execution = {"scheduler": "serial"}
    return {slide.id: slide for slide in run_cohort(folder, retry=retry, execution=execution, **options)}  # type: ignore[arg-type]


def _states(folder: CohortFolder, plan: Plan) -> dict[str, str]:
    return {state.row.id: state.state for state in states(folder, plan, plan.rows)}


def _stores(folder: CohortFolder) -> list[str]:
    return sorted(path.stem for path in folder.results.glob("*.zarr"))


def test_a_slide_that_turns_up_as_the_copy_of_another_is_not_published_for_a_second_patient(
    slides: list[Path], tmp_path: Path
) -> None:
    copy(slides[0], tmp_path / "a.svs")
    folder, plan = _cohort(tmp_path, "gone", "a")
    assert _states(folder, plan) == {"gone": "refused", "a": "pending"}
    copy(slides[0], tmp_path / "gone.svs")
    outcome = _run(folder, only=[Only("id", "gone")])["gone"]
    assert outcome.exit_code == SLIDES
    assert "the same content as line 3 (there of patient 'P1')" in outcome.error
    assert {name: slide.status for name, slide in _run(folder, retry=False).items()} == {
        "gone": "failed",
        "a": "published",
    }
    assert _run(folder)["gone"].status == "failed"
    assert _stores(folder) == ["a"]
    copy(slides[1], tmp_path / "gone.svs")
    assert _run(folder)["gone"].status == "published"


def test_a_slide_that_failed_and_was_mended_with_the_wrong_file_is_found_out(
    slides: list[Path], tmp_path: Path
) -> None:
    copy(slides[0], tmp_path / "a.svs")
    copy(slides[1], tmp_path / "b.svs")
    folder, plan = _cohort(tmp_path, "a", "b")
    folder.records.mkdir()
    key = plan.key(plan.rows[0])
    records.write(folder, records.Record("a", key, records.FAILED, error="is damaged", exit_code=SLIDES))
    copy(slides[1], tmp_path / "a.svs")
    outcomes = _run(folder)
    assert (outcomes["a"].status, outcomes["b"].status) == ("failed", "published")
    assert "the same content as line 3" in outcomes["a"].error


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_two_copies_in_two_shares_one_is_published_whichever_job_is_first(
    order: Sequence[int], slides: list[Path], tmp_path: Path
) -> None:
    folder, _ = _cohort(tmp_path, "one", "two")
    for name in ("one", "two"):
        copy(slides[0], tmp_path / f"{name}.svs")
    for index in order:
        _run(folder, shard=Shard(index, 2))
    assert _stores(folder) == ["one"]


def test_what_was_published_first_stays_the_original(slides: list[Path], tmp_path: Path) -> None:
    folder, plan = _cohort(tmp_path, "one", "two")
    copy(slides[0], tmp_path / "two.svs")
    assert _run(folder)["two"].status == "published"
    copy(slides[0], tmp_path / "one.svs")
    # Its file may be gone by now, but the result says what it was made from.
    (tmp_path / "two.svs").write_bytes(b"\0" * slides[0].stat().st_size)
    assert "as line 3" in _run(folder)["one"].error
    assert _states(folder, plan) == {"one": "failed", "two": "done"}
