"""Functions that worker processes can import."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from wsi_nuc.errors import ModelError

READY_IN: list[int] = []
"""The processes that ran the setup of this worker: itself, or the one that it is a copy of."""


def make_ready() -> None:
    READY_IN.append(os.getpid())


def was_made_ready(_: int) -> tuple[bool, int]:
    return len(READY_IN) == 1, os.getpid()


def where_made_ready(_: int) -> tuple[list[int], int]:
    time.sleep(0.2)
    return READY_IN, os.getpid()


def square(number: int) -> int:
    return number * number


def refuse_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def die_once(task: tuple[str, int]) -> int:
    """Kills its own process the first time that task 3 is tried."""
    folder, number = task
    mark = Path(folder) / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow(number: int) -> int:
    time.sleep(0.2)
    return number


def until(happened: Callable[[], bool], most_s: float = 60) -> None:
    deadline = time.monotonic() + most_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def end_at_once() -> None:
    os._exit(1)


def refuse() -> None:
    raise ModelError("weights.pt", "cannot be used here")


def with_workers(workers: int) -> None:
    """Prints a worker's process id and waits for its end."""
    from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor

    executor = DaskExecutor(ClusterOptions(workers=workers, copied=True), make_ready)
    for outcome in executor.run(was_made_ready, [0]):
        assert outcome.result
        sys.stdout.write(f"{outcome.result[1]}\n")
        sys.stdout.flush()
    time.sleep(600)
