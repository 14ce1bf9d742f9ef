"""The plain loop. It defines what all other executors must produce."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from wsi_nuc.executors.base import Outcome, Result, Task, outcome_of


class SerialExecutor:
    """Runs every task in this process. `setup` is called once before the first task."""

    workers = 1

    def __init__(self, setup: Callable[[], None]) -> None:
        setup()

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Outcome[Task, Result]]:
        for task in tasks:
            yield outcome_of(function, task)

    def close(self) -> None:
        pass
