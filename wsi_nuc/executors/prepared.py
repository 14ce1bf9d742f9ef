"""A setup that comes before the tasks of a run, once in every process that computes any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from wsi_nuc.executors.base import Result, Task

_lock = threading.Lock()
_ready: set[str] = set()


@dataclass(frozen=True)
class Preparation:
    """`run`: what tells it from the preparations of other runs that this process works for."""

    run: str
    setup: Callable[[], None]

    def __call__(self) -> None:
        with _lock:
            if self.run not in _ready:
                self.setup()
                _ready.add(self.run)


@dataclass(frozen=True)
class Prepared(Generic[Task, Result]):
    """A function for processes of which nobody knows whether they are prepared."""

    preparation: Preparation
    function: Callable[[Task], Result]

    def __call__(self, task: Task) -> Result:
        self.preparation()
        return self.function(task)
