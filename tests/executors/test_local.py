"""Workers on this machine that cannot start, that stop or outlive their run, and the memory that they share."""

from __future__ import annotations

import asyncio
import errno
import os
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


@pytest.mark.parametrize(("setup", "error"), [(tasks.end_at_once, Interrupted), (tasks.refuse, ModelError)])
def test_workers_that_never_get_ready_end_the_run(
    setup: object, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MOST_DEATHS", 2)
    executor = DaskExecutor(ClusterOptions(workers=1), setup)  # type: ignore[arg-type]
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


def test_a_worker_that_is_stopped_does_not_outlive_a_run_that_is_killed() -> None:
    code = "from tests.executors.tasks import with_one_worker; with_one_worker()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        worker = psutil.Process(int(run.stdout.readline()))
        worker.suspend()
        run.kill()
    tasks.until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_ctrl_c_of_a_terminal_does_not_reach_the_workers() -> None:
    executor = DaskExecutor(ClusterOptions(workers=1), tasks.make_ready)
    try:
        ((_, worker),) = [outcome.result for outcome in executor.run(tasks.was_made_ready, [0]) if outcome.result]
        assert os.getpgid(worker) != os.getpgid(0)
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
