"""Rows 1, 2, 3, 7, 9, 10 and 34: workers and schedulers that die or stop, and machines with little room."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from tests.e2e.command import start
from tests.executors.tasks import until
from tests.faults.one_run import assert_told, digest_after, digest_of, draw, published, run_one
from wsi_nuc.errors import OK, SLIDES, Interrupted, UsageError
from wsi_nuc.events import Event, RegionFinished, SlideStarted, WorkersChanged
from wsi_nuc.executors import dask as given_crew
from wsi_nuc.executors import local
from wsi_nuc.executors.worker_slot import WorkerSlot
from wsi_nuc.models.base import Look, NucleiModel
from wsi_nuc.models.registry import load_model
from wsi_nuc.run import region
from wsi_nuc.run.resources import allow_files
from wsi_nuc.types import TileBatch

ROOT = Path(__file__).parents[2]
FEW_FILES = 64


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2048 x 512 px at 0.5 um: two tiles, each a region of its own unless `region_size` joins them."""
    return draw(tmp_path_factory.mktemp("slides"), size=2048, height=512, seed=5, density=0.3)


@pytest.fixture(scope="module")
def undisturbed(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return digest_after(slide, tmp_path_factory.mktemp("undisturbed"))


def workers() -> list[psutil.Process]:
    """The worker processes of this process's runs, without the one that they are copies of."""
    children = psutil.Process().children(recursive=True)
    processes = [child for child in children if "wsi_nuc.executors.original" in " ".join(child.cmdline())]
    parents = {process.ppid() for process in processes}
    return [process for process in processes if process.pid not in parents]


def at(moment: type[Event], act: Callable[[], object]) -> Callable[[Event], None]:
    """Acts once, at the first event of that kind."""
    left = [act]

    def emit(event: Event) -> None:
        if isinstance(event, moment) and left:
            left.pop()()

    return emit


def test_row_01_workers_killed_from_their_first_instruction_on(
    slide: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills the first two as they start, one of those that replace them, and one when a region is back.

    As long as there is no worker yet this kills the process that it would have been a copy of.
    """
    born, begin = list[WorkerSlot](), WorkerSlot.start

    def stillborn(place: WorkerSlot) -> None:
        begin(place)
        born.append(place)
        if len(born) in (1, 2, 4):
            os.kill(place.pid, signal.SIGKILL)

    monkeypatch.setattr(WorkerSlot, "start", stillborn)
    kill = at(RegionFinished, lambda: os.kill(born[-1].pid, signal.SIGKILL))
    assert digest_after(slide, tmp_path, kill, scheduler="local", workers=2) == undisturbed
    assert len(born) > 4
    assert workers() == []


@dataclass(frozen=True)
class Given:
    """A scheduler that is not the run's own, with one worker and its nanny."""

    address: str
    scheduler: psutil.Popen
    nanny: psutil.Popen

    def kill_nanny_and_worker(self) -> None:
        for process in (self.nanny, *self.nanny.children(recursive=True)):
            process.kill()


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    file = tmp_path / "scheduler.json"

    def dask(program: str, *arguments: str) -> psutil.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--scheduler-file", str(file)]
        quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return psutil.Popen([*command, "--no-dashboard", *arguments], **quiet)

    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", "0")
    nanny = dask("worker", "--nthreads", "1", "--local-directory", str(tmp_path))
    until(lambda: file.exists() and bool(file.read_text()))
    given = Given(json.loads(file.read_text())["address"], scheduler, nanny)
    yield given
    given.kill_nanny_and_worker()
    scheduler.kill()
    for process in (nanny, scheduler):
        process.wait()


def test_row_02_nanny_and_worker_killed(given: Given, slide: Path, undisturbed: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Interrupted, match="no worker"):
        run_one(
            slide,
            out,
            at(SlideStarted, given.kill_nanny_and_worker),
            scheduler=given.address,
            dask={"patience_s": 2},
        )
    assert published(out) == []
    assert digest_after(slide, out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_row_03_scheduler_killed(
    number: signal.Signals,
    given: Given,
    slide: Path,
    undisturbed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scheduler is killed, or stopped, which leaves its connections open."""
    monkeypatch.setattr(given_crew, "ANSWER_S", 10)
    out, struck_at = tmp_path / "out", []

    def strike() -> None:
        struck_at.append(time.monotonic())
        given.scheduler.send_signal(number)

    with pytest.raises(Interrupted, match="loss of its scheduler"):
        run_one(slide, out, at(RegionFinished, strike), scheduler=given.address)
    assert time.monotonic() - struck_at[0] < 30
    assert published(out) == []
    assert digest_after(slide, out) == undisturbed


@pytest.mark.parametrize("count", [1, 2])
def test_row_07_stopped_worker_is_replaced(
    count: int, slide: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers stop, so that no other can do their work. They are killed, so that no late result can come."""
    assert local.SILENT_S < 60
    monkeypatch.setattr(local, "SILENT_S", 3)
    stopped: list[psutil.Process] = []

    def stop() -> None:
        until(lambda: bool(workers()))
        stopped.extend(workers())
        for process in stopped:
            process.suspend()

    assert digest_after(slide, tmp_path, at(SlideStarted, stop), scheduler="local", workers=count) == undisturbed
    assert not any(process.is_running() for process in stopped)


def test_row_09_out_of_device_memory(
    slide: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_model("classical", "cpu")

    def with_room_for(fits: int) -> list[int]:
        """A device with room for `fits` tiles at once. Returns the sizes of the batches that it gets."""
        sizes: list[int] = []

        def look(batch: TileBatch) -> Look:
            sizes.append(len(batch.rgb))
            if len(batch.rgb) > fits:
                raise MemoryError
            return whole.look(batch)

        model = NucleiModel(replace(whole.spec, batch=2), look)
        monkeypatch.setattr(region, "loaded_model", lambda *_: model)
        return sizes

    sizes = with_room_for(1)
    assert run_one(slide, tmp_path / "halved", region_size=2048).exit_code == OK
    assert sizes == [2, 1, 1]
    assert digest_of(tmp_path / "halved") == undisturbed
    with_room_for(0)
    assert_told(run_one(slide, tmp_path / "none"), SLIDES, "out of memory with this tile alone")
    assert published(tmp_path / "none") == []


def test_row_10_memory_cap(slide: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def need(processes: int) -> None:
        """Pretends that this many processes take all memory."""

        def taken(pids: Sequence[int], enough: float) -> float:
            return enough + 1 if len(pids) >= processes else 0

        monkeypatch.setattr(local, "taken_bytes", taken)

    notes: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, WorkersChanged) and event.note:
            notes.append(event.note)

    # The run, two workers, and the process that they are copies of.
    need(4)
    assert run_one(slide, tmp_path / "one", emit, scheduler="local", workers=2).exit_code == OK
    assert len(notes) == 1
    assert "goes on with 1 " in notes[0]
    assert digest_of(tmp_path / "one") == undisturbed
    # With a single worker the first look decides, however short the run is.
    need(2)
    result = run_one(slide, tmp_path / "none", scheduler="local", workers=1)
    assert_told(result, SLIDES, "ower --workers or --region-size")
    assert published(tmp_path / "none") == []


def test_row_34_few_files_and_one_core(slide: Path, undisturbed: str, tmp_path: Path) -> None:
    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])

    command = ("run", slide, "--out", tmp_path, "--tissue", "none", "--quiet")
    with start(*command, preexec_fn=restrict) as process:
        said = process.communicate(timeout=120)[1]
    assert (process.returncode, said) == (OK, "")
    assert digest_of(tmp_path) == undisturbed
    with pytest.raises(UsageError, match="ulimit -n"):
        allow_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
