"""The plain loop. It defines what all other executors must produce."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from wsi_nuc.executors.base import Outcome, Result, Task


class SerialExecutor:
    """Runs every task in this process. `setup` is called once before the first task."""

    workers = 1

    def __init__(self, setup: Callable[[], None]) -> None:
        setup()

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Outcome[Task, Result]]:
        for task in tasks:
            try:
                yield Outcome(task, function(task))
            except Exception as error:  # noqa: BLE001 - guards the loop: an outcome carries any failure, as in Dask
                yield Outcome(task, None, error)

    def close(self) -> None:
        pass
