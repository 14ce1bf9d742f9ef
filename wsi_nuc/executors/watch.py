"""Whether a run can still go on: its scheduler answers, and there are workers, or soon will be.

Who provides the workers of a run and replaces those that are lost.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from distributed import Security

from wsi_nuc.errors import Interrupted
from wsi_nuc.events import Emit, WorkersChanged


class OutOfMemory(Exception):
    """What is being computed needs more memory than there is, with as few workers as can be."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`present`: workers that the scheduler knows; `note`: what the user should hear now, once."""

    present: int
    note: str = ""


class Crew(Protocol):
    """A scheduler and its workers, wherever they are. `tend` and `close` are called from different threads."""

    @property
    def contact(self) -> Any:
        """What Dask's client connects to: the address of a scheduler, or a cluster of this process."""

    @property
    def security(self) -> Security | None: ...

    @property
    def wanted(self) -> int | None:
        """Workers that there shall be; None if somebody else decides that."""

    @property
    def patience_s(self) -> float:
        """How long a run may be without any worker before it ends."""

    def tend(self, client: Any) -> Seen:
        """Replace what is lost; called about twice a second.

        OutOfMemory ends the tasks that are being computed, whatever else it raises ends the run.
        """

    def close(self) -> None:
        """Bounded in time, and nothing of its own is left."""


def scheduler_lost(address: str) -> Interrupted:
    return Interrupted(f"the loss of its scheduler ({address} does not answer)")


TICK_S = 0.5
MOST_PASSED_S = 2.0


class Stopwatch:
    """Seconds that this process saw pass: while it was stopped itself, nobody else was late."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def passed_s(self) -> float:
        """Since the last call."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return min(passed, MOST_PASSED_S)


class Watch:
    """Looks twice a second, in a thread of its own; `check` tells whoever computes that the run is over.

    `shortages` counts how often what was being computed then had to be given up, `shortage` says why.
    """

    def __init__(self, client: Any, crew: Crew, emit: Emit) -> None:
        self._client, self._crew, self._emit = client, crew, emit
        self._seen, self._without_s, self._stopwatch = Seen(0), 0.0, Stopwatch()
        self._told: Seen | None = None
        self.shortages, self.shortage = 0, ""
        self._end: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._thread.start()

    @property
    def workers(self) -> int:
        """At least one: those that there shall be, or else those that are there now."""
        return max(1, self._seen.present if self._crew.wanted is None else self._crew.wanted)

    def check(self) -> None:
        """Raise what ends the run."""
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
        if seen != self._told:
            self._told = seen
            self._emit(WorkersChanged(seen.present, self._crew.wanted, seen.note))
