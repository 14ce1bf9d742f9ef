"""Jobs at work are shown while they live and forgotten when they die, and the work never waits for that."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

import pytest

from tests.cohort.lists import planned, row, write_list
from wsi_nuc.cli import cohort_views
from wsi_nuc.cohort import jobs, records
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.jobs import InHand, JobFile, in_hand, sweep
from wsi_nuc.cohort.plan import Plan, save
from wsi_nuc.cohort.state import DONE, PENDING, RUNNING, State, states, wait
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.events import Event, RegionFinished, SlideFinished, SlideOpened, SlideStarted
from wsi_nuc.store.locks import Held, try_lock
from wsi_nuc.store.place import Place

IDS = {"/a.svs": "a", "/b.svs": "b"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CohortFolder:
    monkeypatch.setattr(jobs, "WRITE_S", 0.01)
    return CohortFolder(tmp_path)


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def _region(slide: str) -> RegionFinished:
    return RegionFinished(slide, 0, 4, 10)


def test_a_job_tells_how_far_each_of_its_slides_is(folder: CohortFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    said = [
        (SlideOpened("/a.svs"), {"a": "opening"}),
        (SlideStarted("/a.svs", 4, 1, 16), {"a": "region 2 of 4"}),
        (_region("/a.svs"), {"a": "region 3 of 4"}),
        (SlideOpened("/b.svs"), {"a": "region 3 of 4", "b": "opening"}),
        (_region("/a.svs"), {"a": "region 4 of 4", "b": "opening"}),
        (_region("/a.svs"), {"a": "publishing 4 regions", "b": "opening"}),
        (SlideStarted("/b.svs", 1, 0, 1), {"a": "publishing 4 regions", "b": "region 1 of 1"}),
        (SlideFinished("/a.svs", "published", 9, 1.0), {"b": "region 1 of 1"}),
    ]
    with JobFile(folder, IDS) as job:
        for event, expected in said:
            job.hear(event)
            until(lambda expected=expected: {name: work.far for name, work in in_hand(folder).items()} == expected)
        (work,) = in_hand(folder).values()
        assert (work.host, work.pid, work.job) == (socket.gethostname(), os.getpid(), "12_3")
    assert list(folder.jobs.iterdir()) == []


def test_a_slide_that_was_left_to_another_job_is_shown_only_for_that_job(folder: CohortFolder) -> None:
    with JobFile(folder, IDS) as computing, JobFile(folder, IDS) as waiting:
        computing.hear(SlideOpened("/a.svs"))
        computing.hear(SlideStarted("/a.svs", 2, 0, 8))
        waiting.hear(SlideOpened("/a.svs"))
        until(lambda: len(list(folder.jobs.glob("*.json"))) == 2 and "a" in in_hand(folder))
        assert in_hand(folder)["a"].far == "region 1 of 2"
        waiting.hear(SlideOpened("/b.svs"))
        until(lambda: "b" in in_hand(folder))
        computing.hear(SlideFinished("/a.svs", "published", 0, 1.0))
        until(lambda: set(in_hand(folder)) == {"b"})


def _left_behind(folder: CohortFolder, host: str, age_s: float = 0.0) -> Path:
    """What a job that was killed leaves: its file, and a lock that nobody holds."""
    folder.jobs.mkdir(exist_ok=True)
    file = folder.jobs / f"{uuid5(NAMESPACE_DNS, host).hex}.json"
    slide = {"id": "s1", "host": host, "pid": 1, "job": "", "since": 0.0, "regions": 4, "regions_done": 1}
    file.write_text(json.dumps({"slides": [slide]}))
    file.with_suffix(".lock").touch()
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def test_the_dead_do_not_count_as_running(folder: CohortFolder) -> None:
    """On this machine at once. Elsewhere, where a lock may not be seen, once the file is no longer renewed."""
    here = _left_behind(folder, socket.gethostname())
    assert in_hand(folder) == {}
    held = Held(try_lock(folder.place(here.with_suffix(".lock")))[0])
    assert set(in_hand(folder)) == {"s1"}
    held.close()
    elsewhere = _left_behind(folder, "node7", age_s=jobs.STALE_S - 60)
    assert in_hand(folder)["s1"].host == "node7"
    sweep(folder)
    assert [here.exists(), elsewhere.exists()] == [False, True]
    _left_behind(folder, "node7", age_s=jobs.STALE_S + 1)
    assert in_hand(folder) == {}
    sweep(folder)
    assert list(folder.jobs.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"slides": [{"id": "a"}]}', '{"slides": [1]}', '{"slides": 3}']
)
def test_a_file_that_says_nothing_is_passed_over(content: str, folder: CohortFolder) -> None:
    _left_behind(folder, socket.gethostname()).write_text(content)
    assert in_hand(folder) == {}
    sweep(folder)
    assert list(folder.jobs.iterdir()) == []


def test_where_a_job_cannot_write_its_file_the_work_goes_on(
    folder: CohortFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JobFile(folder, IDS) as job:
        monkeypatch.setattr(Place, "rename", _refuse)
        job.hear(SlideOpened("/a.svs"))
        time.sleep(0.1)
    assert not list(folder.jobs.glob("*.json"))


def _refuse(*_: object) -> None:
    raise OSError(28, "full")


def test_running_goes_before_pending_and_failed_but_not_before_done(folder: CohortFolder) -> None:
    plan = Plan({}, (row(1), row(2), row(3)))
    save(folder, plan, overwrite=False)
    folder.records.mkdir()
    for line, state in ((2, records.FAILED), (3, DONE)):
        records.write(folder, records.Record(f"s{line}", plan.key(plan.rows[line - 1]), state, exit_code=3))
    folder.store("s3").mkdir(parents=True)
    folder.manifest("s3").touch()
    with JobFile(folder, {planned.slide: planned.id for planned in plan.rows}) as job:
        for planned in plan.rows:
            job.hear(SlideOpened(planned.slide))
            job.hear(SlideStarted(planned.slide, 1, 0, 1))
        until(lambda: len(in_hand(folder)) == 3)
        assert [state.state for state in states(folder, plan, plan.rows)] == [RUNNING, RUNNING, DONE]
    assert [state.state for state in states(folder, plan, plan.rows)] == [PENDING, "failed", DONE]


def test_a_published_slide_is_done_although_the_region_of_the_next_takes_long(
    slides: list[Path], tmp_path: Path
) -> None:
    """The workers are busy with the second slide for as long as the first is not recorded."""
    folder, plan = planned(tmp_path / "cohort", write_list(tmp_path / "list.csv", "slide", *map(str, slides[:2])))
    seen: list[str] = []

    def first_is_done() -> bool:
        return states(folder, plan, plan.rows[:1])[0].state == DONE

    def emit(event: Event) -> None:
        if isinstance(event, RegionFinished) and event.slide == str(slides[1]):
            # The serial executor stays in the region until this returns, so nothing else happens in its thread.
            until(first_is_done)
            seen.append(states(folder, plan, plan.rows[1:])[0].state)

    list(run_cohort(folder, execution={"scheduler": "serial"}, emit=emit))
    assert seen
    assert list(folder.jobs.iterdir()) == []


def _looks(*kinds: str) -> Callable[[], list[State]]:
    left = list(kinds)
    return lambda: [State(row(1), DONE), State(row(2), left.pop(0))]


def test_waiting_ends_when_nothing_is_pending_or_running(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    heard: list[object] = []
    seen = wait(_looks("pending", "running", *["pending"] * 20, "failed", "pending"), heard.append)
    assert [state.state for state in seen] == [DONE, "failed"]
    assert len(heard) == len(slept) == 22
    assert slept[0] < 5
    assert slept == sorted(slept)
    assert max(slept) <= 60
    assert [state.state for state in wait(_looks("pending"), heard.append, timeout_s=0.0)] == [DONE, PENDING]


def test_in_hand_says_where_and_since_when() -> None:
    work = InHand("a", "node7", 77, "12_3", 0.0, 4, 1)
    assert str(work).startswith("region 2 of 4 on node7, job 12_3, process 77, since ")


def test_who_waits_is_told_when_nobody_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(cohort_views, "stoppable", lambda kept: nullcontext())
    cohort_views._wait(_looks("running", "pending", "done"), None)
    said = capsys.readouterr().err.splitlines()
    assert ["no job is at work" in line for line in said] == [False, True]
