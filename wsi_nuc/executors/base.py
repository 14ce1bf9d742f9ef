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
    error: Exception | None = None


class Executor(Protocol):
    """Tasks are pulled lazily, a bounded number ahead; outcomes come in any order, each exactly once."""

    @property
    def workers(self) -> int: ...

    def run(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Outcome[Task, Result]]: ...

    def close(self) -> None: ...


def alone(task: Task) -> Task:
    """The task for one more try where workers died of it. A task with a method `alone` says how it is then done;
    any other is repeated."""
    done_alone: Callable[[], Task] | None = getattr(task, "alone", None)
    return task if done_alone is None else done_alone()


# `run` of an executor: a function and tasks in, outcomes with `result` and `error` out, in any order.
Execute = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
