"""What is asked of the queue: sizes from the plan's own estimate, the rest as the user says."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_nuc.cohort.plan import Plan
from wsi_nuc.errors import UsageError

GIB = 2**30
# Resident memory of `cohort run` with the default model, measured: 0.9 GiB with one worker, 2.3 GiB with four, and
# these numbers meet that within 7 %. A plan knows better what a worker takes: that of a few tiles of three slides.
COORDINATOR_BYTES, WORKER_BYTES = 0.45 * GIB, 0.5 * GIB
MEMORY_MARGIN = 1.25
# A task shall need half of its time, since the estimate was made on another machine, with a few tiles.
TIME_MARGIN = 2.0
# Start and warning before the end; a task must have time for them and for two regions, or it may never get on.
STARTING_S, WARNING_S = 60, 120
REGIONS_A_TASK = 2
# Regions are made so that they need less, unless a single tile takes longer.
LONGEST_REGION_S = 600


@dataclass(frozen=True, slots=True)
class Request:
    """Of the queue, for each of `tasks`; `seconds` is the limit of its time. `at_once`: of the tasks; 0 for any.

    `stage` may name variables: the node that computes knows their values. `prologue`: shell lines before the
    program, such as module load; `program`: how it is started, words of a shell. `retry`: what failed, too.
    """

    tasks: int
    cpus: int
    gpus: int
    memory_gib: int
    seconds: int
    at_once: int = 0
    partition: str = ""
    account: str = ""
    stage: str = ""
    prologue: Sequence[str] = ()
    directives: Sequence[str] = ()
    program: str = "wsi-nuc"
    restarts: int = 3
    allow_failed: bool = False
    retry: bool = False


def tasks_of(plan: Plan, cpus: int, seconds: int, most: int) -> int:
    """So many that each needs about half of its time; never more than slides, since a share has whole ones."""
    work_s = plan.estimate.get("worker_seconds", 0.0) * TIME_MARGIN / cpus
    useful_s = max(1.0, seconds - STARTING_S - WARNING_S)
    return max(1, min(most, len(plan.runnable), math.ceil(work_s / useful_s)))


def memory_gib(plan: Plan, workers: int) -> int:
    """Whole GiB of a task: what the first process takes, and so much for each worker, and a quarter more."""
    worker_bytes = plan.estimate.get("worker_bytes", WORKER_BYTES)
    return math.ceil((COORDINATOR_BYTES + workers * worker_bytes) * MEMORY_MARGIN / GIB)


def check_time(plan: Plan, seconds: int) -> None:
    """Refuse a time in which a task cannot finish two regions: it would be started again and again for nothing."""
    largest = max((row.tiles / max(1, row.facts.regions) for row in plan.runnable if row.facts), default=0.0)
    tile_s = plan.estimate.get("seconds_a_tile", 0.0)
    region_s = max(tile_s, min(tile_s * largest, LONGEST_REGION_S))
    least = STARTING_S + WARNING_S + REGIONS_A_TASK * region_s
    if seconds < least:
        raise UsageError(
            f"--time {clock(seconds)}",
            f"a region takes about {region_s:.0f} s, and a task is told to stop {WARNING_S} s before its end",
            f"give at least {math.ceil(least / 60)}m",
        )


_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def seconds_of(text: str) -> int:
    """2h, 90m, 1d12h, 02:00:00 or 1-12:00:00."""
    units = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    clocked = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text.strip())
    match = clocked or units
    given = [int(part or 0) for part in match.groups()] if match else []
    total = sum(count * unit for count, unit in zip(given, _UNITS.values(), strict=False))
    if not total:
        raise UsageError(f"--time {text}", "is not like 2h, 90m or 02:00:00", "give the time of one task so")
    return total


def clock(seconds: int) -> str:
    """HH:MM:SS, hours over 24 included: all queues read that."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
