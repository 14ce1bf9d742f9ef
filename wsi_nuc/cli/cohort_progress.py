"""How far the looking at slides has come, and what cannot run, on standard error."""

from __future__ import annotations

import time

import typer

from wsi_nuc.cohort.plan import PlanRow
from wsi_nuc.cohort.planning import Listener

EVERY_S = 5.0


class Looking(Listener):
    """A line at both ends and every few seconds, on terminals, too; a slide that cannot run is named at once."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started = self._last = time.monotonic()

    def looked(self, done: int, of: int, before: int) -> None:
        now = time.monotonic()
        if self._quiet or (now - self._last < EVERY_S and done not in (before, of)):
            return
        self._last = now
        earlier = f" ({before:,} of them earlier)" if before else ""
        new = done - before
        left = f", about {_clock((of - done) * (now - self._started) / new)} left" if new and of > done else ""
        typer.echo(f"looked at {done:,} of {of:,} slides{earlier}{left}", err=True)

    def refused(self, row: PlanRow) -> None:
        typer.echo(f"wsi-nuc: {row.label}: {row.problem}", err=True)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
