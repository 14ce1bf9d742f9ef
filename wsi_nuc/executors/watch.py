"""Watches whether a run can go on: its scheduler answers, and it has workers, or soon will.

The workers of a run are provided and replaced by its `Crew`, which comes in one kind for each place they can be.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from distributed import Security

from wsi_nuc.errors import Interrupted
from wsi_nuc.events import Emit, WorkersChanged

TICK_S = 0.5
MOST_PASSED_S = 2.0


class OutOfMemory(Exception):
    """What is being computed needs more memory than there is, even with a single worker."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the workers has shown."""

    present: int
    """Workers that the scheduler knows."""
    note: str = ""
    """A message for the user, said once."""


class Crew(Protocol):
    """A scheduler and its workers, wherever they are. `tend` and `close` are called from different threads."""

    @property
    def contact(self) -> Any:
        """What Dask's client connects to: the address of a scheduler, or a cluster of this process."""

    @property
    def security(self) -> Security | None:
        """TLS for its connections; None for plain TCP."""

    @property
    def wanted(self) -> int | None:
        """How many workers there should be; None if somebody else decides that."""

    @property
    def patience_s(self) -> float:
        """How long a run may be without any worker before it ends."""

    def tend(self, client: Any) -> Seen:
        """Replace lost workers. Called about twice a second.

        If it raises OutOfMemory the tasks that are being computed end; any other exception ends the run.
        """

    def close(self) -> None:
        """Ends within a bounded time and leaves nothing of its own behind."""


def scheduler_lost(address: str) -> Interrupted:
    return Interrupted(f"the loss of its scheduler ({address} does not answer)")


class Stopwatch:
    """Counts the seconds that this process was running, without the time in which it was stopped itself."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def passed_s(self) -> float:
        """Since the last call."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return min(passed, MOST_PASSED_S)


class Watch:
    """Looks at the scheduler and its workers twice a second, in a thread of its own."""

    def __init__(self, client: Any, crew: Crew, emit: Emit) -> None:
        self._client, self._crew, self._emit = client, crew, emit
        self._seen, self._without_s, self._stopwatch = Seen(0), 0.0, Stopwatch()
        self._reported: Seen | None = None
        self.shortages = 0
        """How often all that was being computed had to be given up."""
        self.shortage = ""
        """Why, the last time."""
        self._end: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._thread.start()

    @property
    def workers(self) -> int:
        """The number of workers that there should be or, if nobody says, that there are now; at least 1."""
        return max(1, self._seen.present if self._crew.wanted is None else self._crew.wanted)

    def check(self) -> None:
        """Raise the exception that ends the run, if there is one."""
        if self._end is not None:
            raise self._end

    def close(self) -> None:
        self._over.set()
        self._thread.join(MOST_PASSED_S)

    def _loop(self) -> None:
        try:
            while not self._over.wait(TICK_S):
                self._look()
        except BaseException as error:  # noqa: BLE001 - guards the thread: `check` raises it in the run
            self._end = error

    def _look(self) -> None:
        if self._client.status != "running":
            raise scheduler_lost(self._crew.contact)
        self._note(self._tended())
        passed_s = self._stopwatch.passed_s()
        self._without_s = 0.0 if self._seen.present else self._without_s + passed_s
        if self._without_s > self._crew.patience_s:
            raise Interrupted(f"having had no worker for {self._without_s:.0f} s")

    def _tended(self) -> Seen:
        try:
            return self._crew.tend(self._client)
        except OutOfMemory as error:
            self.shortage = str(error)
            self.shortages += 1
            return self._seen

    def _note(self, seen: Seen) -> None:
        self._seen = seen
        if seen != self._reported:
            self._reported = seen
            self._emit(WorkersChanged(seen.present, self._crew.wanted, seen.note))
