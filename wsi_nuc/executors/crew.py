"""Who provides the workers of a run and replaces those that are lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from distributed import Security

from wsi_nuc.errors import Interrupted


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
