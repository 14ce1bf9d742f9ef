"""The contract of every executor: apply a function to tasks and hand back each outcome as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Task, Result]):
    """What became of one task: a result, or the exception that it raised."""

    task: Task
    result: Result | None
    """None if the task raised."""
    error: Exception | None = None
    """What it raised."""


# The type of an executor's `run`: a function and tasks in, outcomes in any order out.
Execute = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Outcome[Any, Any]]]


def outcome_of(function: Callable[[Task], Result], task: Task) -> Outcome[Task, Result]:
    """Calls the function. Whatever it raises is part of the outcome, so that it ends neither loop nor process."""
    try:
        return Outcome(task, function(task))
    except Exception as error:  # noqa: BLE001 - the boundary of all executors: any failure is this task's
        return Outcome(task, None, error)


class Executor(Protocol):
    """Runs tasks.

    They are pulled lazily, a bounded number ahead; outcomes come in any order, each exactly once.
    """

    @property
    def workers(self) -> int:
        """How many tasks can be computed at the same time."""

    def run(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Outcome[Task, Result]]: ...

    def close(self) -> None: ...


def alone(task: Task) -> Task:
    """The task for one more try, without others beside it, after workers died while computing it.

    If the task has a method `alone` that method makes the new task; otherwise the task itself is repeated.
    """
    done_alone: Callable[[], Task] | None = getattr(task, "alone", None)
    return task if done_alone is None else done_alone()
