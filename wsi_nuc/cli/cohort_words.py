"""What the cohort commands print, in words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.plan import Plan, PlanRow
    from wsi_nuc.cohort.state import State

EVERY_S = 5.0


class InspectionProgress:
    """A `Listener` that prints how many slides are inspected, to standard error.

    That is one line at the start, one at the end, and one every few seconds, also on terminals. A slide that
    cannot run is named at once.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started = self._last = time.monotonic()

    def inspected(self, done: int, of: int, before: int) -> None:
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


def plan_words(folder: CohortFolder, plan: Plan, workers: int) -> str:
    """The summary of a plan: what will run, how large it is, where its results go."""
    from wsi_nuc.store.oserror import free_bytes

    good = plan.runnable
    facts = [row.facts for row in good if row.facts]
    area, tiles = sum(slide.area_mm2 for slide in facts), sum(slide.tiles for slide in facts)
    patients = len({row.patient for row in good if row.patient})
    of_patients = f" of {patients:,} patients" if patients else ""
    lines = [f"slides   {len(good):,} of {len(plan.rows):,} will run{of_patients}"]
    gigabytes = sum(slide.bytes for slide in facts) / 1e9
    lines += [f"tissue   {area:,.1f} mm2, {tiles:,} tiles, {gigabytes:,.1f} GB of slides"]
    if plan.estimate:
        seconds = plan.estimate["worker_seconds"]
        lines.append(f"time     about {_hours(seconds / workers)} on this machine with {workers} workers")
        free = free_bytes(folder.root) / 1e9
        lines.append(f"disk     about {plan.estimate['bytes'] / 1e9:,.3g} GB of results, {free:,.0f} GB free")
    lines += [
        f"results  {folder.results}/ID.zarr",
        f"plan     {folder.plan} (as a table: {folder.plan_table.name})",
    ]
    lines += [f"warning  {row.id}: {text}" for row in good if row.facts for text in row.facts.warnings]
    lines += [f"note     {text}" for text in plan.notes]
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def state_lines(slides: Sequence[State], every: bool) -> list[dict[str, Any]]:
    """What is said about each slide: about all, or only about those with an error or a job."""
    return [_state_line(state) for state in slides if every or state.error or state.work]


def _state_line(state: State) -> dict[str, Any]:
    said = {"id": state.row.label, "state": state.state, "error": state.error}
    return {**said, "work": {**asdict(state.work), "said": str(state.work)}} if state.work else said


def status_words(counted: Mapping[str, int], lines: Sequence[Mapping[str, Any]]) -> str:
    total = sum(counted.values())
    out = [f"{state:<9}{count:>8,}" for state, count in counted.items()] + [f"{'slides':<9}{total:>8,}"]
    for line in lines:
        why = line["work"]["said"] if "work" in line else line["error"]
        out.append(" ".join(filter(None, (f"{line['state']}:", line["id"], why))))
    return "\n".join(out)
