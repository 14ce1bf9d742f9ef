"""Jobs of a cohort: each slide is done once, every failure is named, and nothing is lost."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cohort.lists import copy, planned, write_list
from wsi_nuc.cohort import records, tables, work
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import load
from wsi_nuc.cohort.recording import SlideOutcome
from wsi_nuc.cohort.shards import Only, Shard
from wsi_nuc.cohort.state import exit_code, states, verified
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import INTERRUPTED, OK, SLIDES, STORAGE, StorageError, UsageError
from wsi_nuc.run.session import run_session
from wsi_nuc.run.success_or_failure import SlideResult
from wsi_nuc.store import durable
from wsi_nuc.store.verify import verify

HOW = {"scheduler": "serial"}


@pytest.fixture(scope="module")
def planned_once(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> CohortFolder:
    root = tmp_path_factory.mktemp("planned")
    missing = root / "missing.svs"
    lines = [f"{slides[0]},a,P1,", f"{slides[1]},b,P1,0.3", f"{missing},gone,P2,", f"{slides[2]},c,P2,"]
    return planned(root / "cohort", write_list(root / "list.csv", "slide,id,patient,mpp", *lines))[0]


@pytest.fixture
def cohort(planned_once: CohortFolder, tmp_path: Path) -> CohortFolder:
    """Three good slides, the second with settings of its own, and one that is missing."""
    copy(planned_once.plan, tmp_path / "cohort" / "plan.json")
    return CohortFolder(tmp_path / "cohort")


def _run(folder: CohortFolder, **options: object) -> dict[str, SlideOutcome]:
    return {slide.id: slide for slide in run_cohort(folder, execution=HOW, **options)}  # type: ignore[arg-type]


def _status(folder: CohortFolder) -> dict[str, str]:
    plan = load(folder)
    return {state.row.id: state.state for state in states(folder, plan, plan.rows)}


def _digest(store: Path) -> str:
    return str(json.loads((store / "manifest.json").read_text())["digest"])


def test_shards_in_any_order_do_all_and_each_slide_once(
    cohort: CohortFolder, slides: list[Path], tmp_path: Path
) -> None:
    assert _status(cohort) == {"a": "pending", "b": "pending", "gone": "refused", "c": "pending"}
    outcomes = [_run(cohort, shard=Shard(index, 3)) for index in (3, 1, 2, 1)]
    assert sorted(name for slides in outcomes[:3] for name in slides) == ["a", "b", "c", "gone"]
    assert {slide.status for slide in outcomes[3].values()} <= {"kept", "refused"}
    assert _status(cohort) == {"a": "done", "b": "done", "gone": "refused", "c": "done"}
    list(run_session(RunConfig(out=tmp_path / "alone", mpp=0.3, model="classical", **HOW), [str(slides[1])]))
    assert _digest(cohort.store("b")) == _digest(tmp_path / "alone" / "b.svs.zarr")
    for name in "abc":
        assert tables.read(cohort, name, _digest(cohort.store(name)))
    plan = load(cohort)
    assert exit_code(states(cohort, plan, plan.rows)) == SLIDES


def test_a_share_without_what_is_wanted_has_nothing_to_do(cohort: CohortFolder) -> None:
    shares = [set(_run(cohort, shard=Shard(index, 4), only=[Only("id", "gone")])) for index in range(1, 5)]
    assert sorted(map(sorted, shares)) == [[], [], [], ["gone"]]
    with pytest.raises(UsageError, match="no slide matches"):
        _run(cohort, shard=Shard(1, 4), only=[Only("id", "nobody")])


def test_a_slide_that_turns_up_is_done_by_a_retry_and_only_then(cohort: CohortFolder, slides: list[Path]) -> None:
    only = [Only("id", "gone")]
    (missing,) = [Path(row.slide) for row in load(cohort).rows if row.id == "gone"]
    copy(slides[3], missing)
    try:
        assert _run(cohort, only=only)["gone"].status == "refused"
        assert _run(cohort, only=only, retry=True)["gone"].status == "published"
    finally:
        missing.unlink()
    assert _status(cohort)["gone"] == "done"


def test_what_failed_for_its_own_sake_is_named_again_and_not_repeated(
    cohort: CohortFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load(cohort)
    (row,) = [row for row in plan.rows if row.id == "a"]
    for code, repeated in ((SLIDES, False), (STORAGE, True)):
        failed = records.Record("a", plan.key(row), records.FAILED, error="a.svs: broken", exit_code=code)
        records.write(cohort, failed)
        seen: list[str] = []
        monkeypatch.setattr(work, "run_slides", _noting(seen))
        outcomes = _run(cohort, only=[Only("id", "a")])
        assert bool(seen) == repeated
        if not repeated:
            assert outcomes["a"].exit_code == SLIDES
            assert "broken" in outcomes["a"].error


def _noting(seen: list[str]) -> object:
    def run(
        config: RunConfig, requests: list[work.SlideRequest], emit: object, out: object, class_tables: bool
    ) -> Iterator[SlideResult]:
        seen.extend(request.slide for request in requests)
        yield from ()

    return run


def test_a_kill_between_publishing_and_recording_loses_nothing(
    cohort: CohortFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _run(cohort, only=[Only("id", "a")])
    assert first["a"].status == "published"
    before = _digest(cohort.store("a"))
    cohort.record("a").unlink()
    cohort.summary("a").unlink()
    (cohort.records / ".tmp-left-behind").write_text("half a rec")
    assert _status(cohort)["a"] == "pending"
    again = _run(cohort, only=[Only("id", "a")])
    assert again["a"].status == "verified"
    assert _digest(cohort.store("a")) == before
    assert _status(cohort)["a"] == "done"


def test_a_damaged_or_lost_result_is_pending_again_and_restored(cohort: CohortFolder) -> None:
    _run(cohort, only=[Only("patient", "P1")])
    before = {name: _digest(cohort.store(name)) for name in "ab"}
    shutil.rmtree(cohort.store("a"))
    assert _status(cohort)["a"] == "pending"
    parquet = cohort.store("b") / "shapes/nuclei/shapes.parquet"
    content = bytearray(parquet.read_bytes())
    content[len(content) // 2] ^= 1
    parquet.write_bytes(content)
    plan = load(cohort)
    looked = {state.row.id: state for state in verified(cohort, states(cohort, plan, plan.rows))}
    assert looked["b"].state == "pending"
    assert "shapes.parquet" in looked["b"].error
    outcomes = _run(cohort, only=[Only("patient", "P1")])
    assert {slide.status for slide in outcomes.values()} == {"published"}
    assert {name: _digest(cohort.store(name)) for name in "ab"} == before


def test_a_result_that_lacks_a_file_is_found_without_reading_it(cohort: CohortFolder) -> None:
    _run(cohort, only=[Only("id", "a")])
    (cohort.store("a") / "shapes/tissue/shapes.parquet").unlink()
    assert _run(cohort, only=[Only("id", "a")])["a"].status == "published"
    assert (cohort.store("a") / "shapes/tissue/shapes.parquet").exists()


@pytest.mark.slow
def test_a_full_disk_at_any_write_loses_nothing(cohort: CohortFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th durable call of the cohort's own files fails; the next job makes up for it."""
    reached = 0
    for stop_at in range(1, 40):
        calls = 0

        def full(operation: str, path: Path, stop_at: int = stop_at) -> None:
            nonlocal calls
            if path.is_relative_to(cohort.results) or operation == "mkdir":
                return
            calls += 1
            if calls == stop_at:
                raise OSError(errno.ENOSPC, "no space", str(path))

        monkeypatch.setattr(durable, "before", full)
        try:
            code = _run(cohort, only=[Only("id", "a")])["a"].exit_code
        except StorageError as error:
            code = error.exit_code if "free" in str(error) else OK
        monkeypatch.setattr(durable, "before", lambda operation, path: None)
        if calls < stop_at:
            break
        reached = stop_at
        assert code == STORAGE
        assert verify(cohort.store("a")) == []
        assert _run(cohort, only=[Only("id", "a")])["a"].exit_code == OK
        assert _status(cohort)["a"] == "done"
        cohort.record("a").unlink()
        cohort.summary("a").unlink()
    assert reached >= 8


@pytest.mark.slow
def test_other_settings_make_a_slide_pending_and_its_old_result_is_kept_until_asked(
    cohort: CohortFolder, planned_once: CohortFolder
) -> None:
    from wsi_nuc.cohort.plan import save
    from wsi_nuc.cohort.planning import make_plan

    _run(cohort, only=[Only("id", "a")])
    before = _digest(cohort.store("a"))
    config = load(cohort).config(cohort, HOW).model_copy(update={"labels": True})
    source = str(planned_once.root.parent / "list.csv")
    save(cohort, make_plan(cohort, source, config, overwrite=True), overwrite=True)
    assert _status(cohort)["a"] == "pending"
    refused = _run(cohort, only=[Only("id", "a")])["a"]
    assert "labels: False -> True" in refused.error
    assert _digest(cohort.store("a")) == before
    plan = load(cohort)
    assert exit_code([state for state in states(cohort, plan, plan.rows) if state.row.id == "c"]) == INTERRUPTED
    replaced = list(run_cohort(cohort, only=[Only("id", "a")], execution={**HOW, "overwrite": True}))
    assert replaced[0].status == "published"
    assert _digest(cohort.store("a")) != before
