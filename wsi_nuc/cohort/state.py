"""The state of every slide of a cohort, from its plan, records and jobs.

`wait` looks again until the jobs are done. `verified` also reads every result: a slide whose result does not match
its manifest is pending again.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from wsi_nuc.cohort import records
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.jobs import InHand, in_hand
from wsi_nuc.cohort.plan import Plan, PlanRow
from wsi_nuc.cohort.records import DONE, FAILED, Record
from wsi_nuc.errors import INTERRUPTED, OK, SLIDES, overall_code
from wsi_nuc.run.resources import usable_cpus
from wsi_nuc.store import durable
from wsi_nuc.store.verify import verify

RUNNING, PENDING, REFUSED = "running", "pending", "refused"
STATES = (DONE, RUNNING, PENDING, FAILED, REFUSED)
UNFINISHED = (RUNNING, PENDING)
FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 2.0, 60.0, 1.5
# Looking takes at most this part of the time (1/20): the cohort may lie on a busy file server.
SHARE_OF_LOOKING = 20
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class State:
    """Where one slide stands."""

    row: PlanRow
    state: str
    """done (published and verified), running (a job works on it), pending, failed, or refused (by the plan)."""
    error: str = ""
    """Why it is not done, if there is a reason."""
    exit_code: int = OK
    """Of the error."""
    record: Record | None = None
    work: InHand | None = None
    """The job that works on it."""

    def cells(self) -> dict[str, str]:
        return {**self.row.cells(), "state": self.state}


def states(folder: CohortFolder, plan: Plan, rows: Sequence[PlanRow]) -> list[State]:
    """One state per row. If a record belongs to another plan, or its store is gone, the slide is pending."""
    # Jobs are read first: a slide that is finished in between then counts as running, not as pending again.
    working = in_hand(folder)
    known = records.read(folder, [row.id for row in rows if row.id])
    recorded = (_state(folder, row, _valid(plan, row, known.get(row.id))) for row in rows)
    return [_at_work(state, working.get(state.row.id)) for state in recorded]


def _at_work(state: State, work: InHand | None) -> State:
    if work is None or state.state == DONE:
        return state
    return replace(state, state=RUNNING, error="", exit_code=OK, work=work)


def _valid(plan: Plan, row: PlanRow, record: Record | None) -> Record | None:
    return record if record is not None and record.key == plan.key(row) else None


def _state(folder: CohortFolder, row: PlanRow, record: Record | None) -> State:
    if record is not None and record.state == DONE:
        if os.path.exists(folder.manifest(row.id)):  # noqa: PTH110 - called ten thousand times
            return State(row, DONE, record=record)
        return State(row, PENDING, "its result was done and is gone")
    if record is not None:
        return State(row, FAILED, record.error, record.exit_code, record)
    if row.problem:
        return State(row, REFUSED, row.problem, row.exit_code)
    return State(row, PENDING)


def counts(slides: Sequence[State]) -> dict[str, int]:
    """The number of slides by state, also for states without any."""
    counted = Counter(slide.state for slide in slides)
    return {state: counted[state] for state in STATES}


class Standing(Protocol):
    """What the exit code of a command depends on, for one slide."""

    @property
    def state(self) -> str:
        """One of `STATES`."""

    @property
    def exit_code(self) -> int:
        """Of its failure."""


def exit_code(slides: Iterable[Standing], allow_failed: bool = False) -> int:
    """The exit code of every command over a cohort.

    0: every slide is published and verified; 75: work is left, whatever else there is; 3: nothing is left, but
    some slides are bad, each named. With `allow_failed` bad slides count as finished. Failures of storage, models
    and settings keep their own codes, since no slide causes them.
    """
    codes = map(_code, slides)
    return overall_code(code for code in codes if not (allow_failed and code == SLIDES))


def _code(slide: Standing) -> int:
    fixed = {DONE: OK, **dict.fromkeys(UNFINISHED, INTERRUPTED), REFUSED: SLIDES}
    return fixed.get(slide.state, slide.exit_code)


ReadStates = Callable[[], Sequence[State]]


def wait(
    read_states: ReadStates, hear: Callable[[Sequence[State]], None], timeout_s: float | None = None
) -> Sequence[State]:
    """Look again and again until nothing is pending or running, or the time is over; returns the last states.

    `hear` is called with the states of each look after which the waiting goes on.
    """
    end = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    pause = FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        seen = read_states()
        now = time.monotonic()
        if now >= end or not any(state.state in UNFINISHED for state in seen):
            return seen
        hear(seen)
        time.sleep(min(max(pause, SHARE_OF_LOOKING * (now - began)), end - now))
        pause = min(LONGEST_PAUSE_S, GROWTH * pause)


def verified(folder: CohortFolder, slides: Sequence[State]) -> list[State]:
    """The states, with damaged results pending.

    Their records are removed, so that the next job runs them again.
    """
    with ThreadPoolExecutor(usable_cpus()) as pool:
        return list(pool.map(partial(_checked, folder), slides))


def _checked(folder: CohortFolder, state: State) -> State:
    problems = verify(folder.store(state.row.id)) if state.state == DONE else []
    if not problems:
        return state
    record = folder.place(folder.record(state.row.id))
    with durable.reported("remove", record):
        record.unlink()
    more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
    return replace(state, state=PENDING, error=f"its result is damaged: {'; '.join(problems[:MOST_NAMED])}{more}")
