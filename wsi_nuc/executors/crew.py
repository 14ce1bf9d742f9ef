"""Who provides the workers of a run and replaces those that are lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from distributed import Security

from wsi_nuc.errors import Interrupted

STEP_S = 0.5


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


@dataclass(frozen=True)
class GivenCrew:
    """Workers of a scheduler that runs already; whoever started them looks after them."""

    contact: str
    security: Security | None
    patience_s: float
    answer_s: float = 20
    wanted: None = None

    def tend(self, client: Any) -> Seen:
        """A scheduler that is stopped keeps its connections, but says nothing."""
        asked = asyncio.run_coroutine_threadsafe(client.scheduler.ncores(), client.loop.asyncio_loop)
        # Step by step: while this process is stopped itself it must not lose patience.
        for _ in range(int(self.answer_s / STEP_S)):
            try:
                return Seen(len(asked.result(STEP_S)))
            except TimeoutError:
                continue
            except OSError:
                break
        asked.cancel()
        raise scheduler_lost(self.contact)

    def close(self) -> None:
        pass


def scheduler_lost(address: str) -> Interrupted:
    return Interrupted(f"the loss of its scheduler ({address} does not answer)")
