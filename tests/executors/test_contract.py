"""One suite for every executor: the serial loop says what is right, Dask must agree."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.executors import tasks
from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.executors.base import Executor, Outcome
from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor
from wsi_nuc.executors.serial import SerialExecutor


@pytest.fixture(scope="module", params=["serial", "dask", "dask, copied"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made: Executor
    if request.param == "serial":
        made = SerialExecutor(tasks.make_ready)
    else:
        made = DaskExecutor(ClusterOptions(workers=2, copied="copied" in request.param), tasks.make_ready)
    yield made
    made.close()


def test_each_task_comes_back_exactly_once(executor: Executor) -> None:
    outcomes = list(executor.run(tasks.square, range(50)))
    assert sorted(o.task for o in outcomes) == list(range(50))
    assert all(o.result == o.task**2 and o.error is None for o in outcomes)


def test_a_failing_task_costs_only_itself(executor: Executor) -> None:
    outcomes = {o.task: o for o in executor.run(tasks.refuse_odd, range(10))}
    assert [o.result for t, o in sorted(outcomes.items()) if t % 2 == 0] == [0, 2, 4, 6, 8]
    assert all("is odd" in str(outcomes[t].error) for t in (1, 3, 5, 7, 9))


def test_setup_ran_wherever_tasks_run(executor: Executor) -> None:
    assert all(o.result and o.result[0] for o in executor.run(tasks.was_made_ready, range(8)))


def test_no_tasks_no_outcomes(executor: Executor) -> None:
    assert list(executor.run(tasks.square, [])) == []


def test_tasks_are_pulled_a_bounded_number_ahead(executor: Executor) -> None:
    pulled = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            pulled.append(number)
            yield number

    outcomes = executor.run(tasks.square, numbers())
    for done in range(1, 20):
        next(outcomes)
        assert len(pulled) <= done + 2 * executor.workers
    assert len(list(outcomes)) == 81


def test_an_abandoned_run_leaves_the_executor_usable(executor: Executor) -> None:
    outcomes = executor.run(tasks.slow, range(20))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert [o.result for o in executor.run(tasks.square, [3])] == [9]


@pytest.mark.parametrize("copied", [False, True])
def test_a_killed_worker_is_replaced_and_its_task_repeated(tmp_path: Path, copied: bool) -> None:
    executor = DaskExecutor(ClusterOptions(workers=2, copied=copied), tasks.make_ready)
    try:
        outcomes = list(executor.run(tasks.die_once, [(str(tmp_path), n) for n in range(12)]))
        assert sorted(o.result for o in outcomes) == list(range(12))
        assert (tmp_path / "died").exists()
        ready = [o.result for o in executor.run(tasks.was_made_ready, range(8))]
        assert all(made_ready for made_ready, _ in ready), "a worker that was started anew is set up, too"
    finally:
        executor.close()


def test_a_task_that_kills_every_worker_is_given_up_and_named() -> None:
    executor = DaskExecutor(ClusterOptions(workers=2), tasks.make_ready)
    try:
        outcomes = {o.task: o for o in executor.run(tasks.always_die, range(6))}
        assert isinstance(outcomes[2].error, SlideError)
        assert "died again and again" in str(outcomes[2].error)
        assert [outcomes[n].result for n in (0, 1, 3, 4, 5)] == [0, 1, 3, 4, 5]
    finally:
        executor.close()


def test_a_result_that_dies_with_its_worker_is_computed_anew() -> None:
    """The worker may be killed after its task was reported as done, but before the result was fetched."""
    executor = DaskExecutor(ClusterOptions(workers=2), tasks.make_ready)
    try:
        future = executor._client.submit(tasks.slow, 7, pure=False)
        tasks.until(future.done)
        (address,) = executor._client.who_has([future])[future.key]
        os.kill(executor._client.run(os.getpid, workers=[address])[address], signal.SIGKILL)
        tasks.until(lambda: future.status != "finished")
        assert executor._outcome("a", executor._fetched(future)) == Outcome("a", 7)
    finally:
        executor.close()


def test_a_task_that_the_scheduler_gives_up_is_an_outcome() -> None:
    executor = DaskExecutor(ClusterOptions(workers=1), tasks.make_ready)
    try:
        future = executor._client.submit(tasks.slow, 7, pure=False)
        executor._client.cancel([future], force=True)
        outcome = executor._outcome("a", executor._fetched(future))
        assert isinstance(outcome.error, SlideError)
        assert "run the command again" in outcome.error.remedy
    finally:
        executor.close()


def test_a_cluster_beyond_loopback_talks_tls() -> None:
    executor = DaskExecutor(ClusterOptions(workers=1, host="0.0.0.0"), tasks.make_ready)
    try:
        assert executor._client.scheduler.address.startswith("tls://")
        assert [o.result for o in executor.run(tasks.square, [5])] == [25]
    finally:
        executor.close()


@pytest.mark.parametrize("address", ["tcp://192.0.2.7:8786", "somewhere", "http://127.0.0.1:1"])
def test_plain_tcp_to_another_machine_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="TLS"):
        DaskExecutor(ClusterOptions(address=address), tasks.make_ready)


def test_a_given_scheduler_is_used_and_left_running() -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, processes=True) as cluster:
        address = cluster.scheduler_address
        guest = DaskExecutor(ClusterOptions(address=address), tasks.make_ready)
        results = [o.result for o in guest.run(tasks.was_made_ready, range(2))]
        guest.close()
        assert all(made_ready and pid != os.getpid() for made_ready, pid in results)
        with Client(address) as other:
            assert other.submit(tasks.square, 4).result() == 16
