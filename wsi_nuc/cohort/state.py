"""Where every slide of a cohort stands, from its plan and its records.

Waiting for the jobs of a cohort, gently: what is looked at may lie on a busy file server.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from wsi_nuc.cohort import records
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.jobs import InHand, in_hand
from wsi_nuc.cohort.plan import Plan, PlanRow
from wsi_nuc.cohort.records import DONE, FAILED, Record
from wsi_nuc.errors import INTERRUPTED, OK, SLIDES, overall_code

RUNNING, PENDING, REFUSED = "running", "pending", "refused"
STATES = (DONE, RUNNING, PENDING, FAILED, REFUSED)
UNFINISHED = (RUNNING, PENDING)


@dataclass(frozen=True, slots=True)
class State:
    """`state`: done (published and verified), running (in the hands of the job `work`), pending, failed, or
    refused (by the plan). `error` says why not."""

    row: PlanRow
    state: str
    error: str = ""
    exit_code: int = OK
    record: Record | None = None
    work: InHand | None = None

    def cells(self) -> dict[str, str]:
        return {**self.row.cells(), "state": self.state}


def states(folder: CohortFolder, plan: Plan, rows: Sequence[PlanRow]) -> list[State]:
    """One a row. A record of another plan's row, or without its store, leaves the slide pending."""
    # Jobs first: a slide that is done between the two looks is told as running, not as pending again.
    working = in_hand(folder)
    known = records.read(folder, [row.id for row in rows if row.id])
    found = (_state(folder, row, _valid(plan, row, known.get(row.id))) for row in rows)
    return [_at_work(state, working.get(state.row.id)) for state in found]


def _at_work(state: State, work: InHand | None) -> State:
    if work is None or state.state == DONE:
        return state
    return replace(state, state=RUNNING, error="", exit_code=OK, work=work)


def _valid(plan: Plan, row: PlanRow, record: Record | None) -> Record | None:
    return record if record is not None and record.key == plan.key(row) else None


def _state(folder: CohortFolder, row: PlanRow, record: Record | None) -> State:
    if record is not None and record.state == DONE:
        if os.path.exists(folder.manifest(row.id)):  # noqa: PTH110 - ten thousand times
            return State(row, DONE, record=record)
        return State(row, PENDING, "its result was done and is gone")
    if record is not None:
        return State(row, FAILED, record.error, record.exit_code, record)
    if row.problem:
        return State(row, REFUSED, row.problem, row.exit_code)
    return State(row, PENDING)


def counts(found: Sequence[State]) -> dict[str, int]:
    """By state, all of them named."""
    counted = Counter(one.state for one in found)
    return {state: counted[state] for state in STATES}


class Standing(Protocol):
    """What the exit code depends on; `exit_code` is that of a failure."""

    @property
    def state(self) -> str: ...
    @property
    def exit_code(self) -> int: ...


def exit_code(slides: Iterable[Standing], allow_failed: bool = False) -> int:
    """What every command over a cohort ends with.

    0: every slide is published and verified; 75: work is left, whatever else there is; 3: nothing is left, but
    some slides are bad, each named. With `allow_failed` bad slides count as finished. Storage, models and settings
    that fail keep their own codes: they are no fault of a slide.
    """
    codes = map(_code, slides)
    return overall_code(code for code in codes if not (allow_failed and code == SLIDES))


def _code(slide: Standing) -> int:
    fixed = {DONE: OK, **dict.fromkeys(UNFINISHED, INTERRUPTED), REFUSED: SLIDES}
    return fixed.get(slide.state, slide.exit_code)


FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 2.0, 60.0, 1.5
# Looking takes no more than one part in so many of the time.
SHARE_OF_LOOKING = 20

Look = Callable[[], Sequence[State]]


def wait(look: Look, told: Callable[[Sequence[State]], None], timeout_s: float | None = None) -> Sequence[State]:
    """Look again and again until nothing is pending or running, or the time is over; what was seen last.

    `told` hears each look after which the waiting goes on.
    """
    end = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    pause = FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        seen = look()
        now = time.monotonic()
        if now >= end or not any(state.state in UNFINISHED for state in seen):
            return seen
        told(seen)
        time.sleep(min(max(pause, SHARE_OF_LOOKING * (now - began)), end - now))
        pause = min(LONGEST_PAUSE_S, GROWTH * pause)
