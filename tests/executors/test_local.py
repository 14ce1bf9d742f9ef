"""Workers on this machine that cannot start, that stop or outlive their run, and the memory that they share."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.executors import tasks
from wsi_nuc.errors import Interrupted, ModelError
from wsi_nuc.executors import local
from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor
from wsi_nuc.executors.local import taken_bytes
from wsi_nuc.executors.watch import TICK_S

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("setup", "error"), [(tasks.end_at_once, Interrupted), (tasks.refuse, ModelError)])
def test_workers_that_never_get_ready_end_the_run(
    setup: object, error: type[BaseException], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MOST_DEATHS", 2)
    executor = DaskExecutor(ClusterOptions(workers=workers, copied=True), setup)  # type: ignore[arg-type]
    try:
        with pytest.raises(error):
            list(executor.run(tasks.square, range(3)))
    finally:
        executor.close()


def test_a_machine_that_starts_no_process_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(local, "MOST_DEATHS", 2)
    executor = DaskExecutor(ClusterOptions(workers=1), tasks.make_ready)
    try:
        assert [outcome.result for outcome in executor.run(tasks.square, [2])] == [4]
        monkeypatch.setattr(subprocess, "Popen", refused)
        with pytest.raises(Interrupted, match="temporarily unavailable"):
            list(executor.run(tasks.always_die, [2]))
    finally:
        executor.close()
    with pytest.raises(Interrupted, match="temporarily unavailable"):
        DaskExecutor(ClusterOptions(workers=1), tasks.make_ready)


@pytest.mark.skipif(sys.platform != "linux", reason="only there are workers copies")
def test_workers_are_copies_of_one_process_that_is_ready() -> None:
    executor = DaskExecutor(ClusterOptions(workers=2, copied=True), tasks.make_ready)

    def originals() -> dict[int, tuple[int, ...]]:
        """By worker, the processes that ran its setup."""
        outcomes = executor.run(tasks.where_made_ready, range(4))
        return {o.result[1]: tuple(o.result[0]) for o in outcomes if o.result}

    try:
        tasks.until(lambda: len(originals()) == 2)
        before = originals()
        ((original,),) = set(before.values())
        assert original not in {os.getpid(), *before}
        # Without it the workers live on, and in place of one that dies there is a copy of a new one.
        os.kill(original, signal.SIGKILL)
        os.kill(min(before), signal.SIGKILL)
        tasks.until(lambda: len(set(originals().values())) == 2)
        assert set(originals()) & set(before) == {max(before)}
    finally:
        executor.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_stopped_does_not_outlive_a_run_that_is_killed(workers: int) -> None:
    code = f"from tests.executors.tasks import with_workers; with_workers({workers})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        worker = psutil.Process(int(run.stdout.readline()))
        worker.suspend()
        # The signal may reach it later.
        tasks.until(lambda: worker.status() == psutil.STATUS_STOPPED)
        run.kill()
    tasks.until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_of_a_terminal_does_not_reach_the_workers(workers: int) -> None:
    executor = DaskExecutor(ClusterOptions(workers=workers, copied=True), tasks.make_ready)
    try:
        ((made_ready_in, worker),) = [o.result for o in executor.run(tasks.where_made_ready, [0]) if o.result]
        assert {os.getpgid(process) for process in (worker, *made_ready_in)}.isdisjoint({os.getpgid(0)})
    finally:
        executor.close()


def test_a_result_that_takes_long_to_fetch_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """This takes seconds on a machine that is overloaded."""
    executor = DaskExecutor(ClusterOptions(workers=1), tasks.make_ready)
    gather = executor._client._gather

    async def slow(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(4 * TICK_S)
        return await gather(*arguments, **options)

    monkeypatch.setattr(executor._client, "_gather", slow)
    try:
        assert [outcome.result for outcome in executor.run(tasks.square, [3])] == [9]
    finally:
        executor.close()


def test_memory_that_processes_share_is_counted_once() -> None:
    me = os.getpid()
    rough = psutil.Process(me).memory_info().rss
    assert taken_bytes([me], 1 << 60) == pytest.approx(rough, rel=0.2)
    assert 0 < taken_bytes([me], 0) <= rough * 1.1
    assert taken_bytes([2**22 + 1], 0) == 0
