"""Which slides a job runs: its shard of the plan (`--shard`), and a choice by column (`--only`).

Shards follow from the plan alone, so jobs need not talk to each other.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from wsi_nuc.cohort.plan import PlanRow
from wsi_nuc.cohort.state import State
from wsi_nuc.errors import UsageError

# What a slide costs beside its tiles, as tiles, so that a shard of many empty slides counts as work.
TILES_PER_SLIDE = 2


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the shares that a plan is divided into."""

    index: int
    """From 1."""
    count: int
    """Of all shards."""

    @classmethod
    def parse(cls, text: str) -> Shard:
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not match:
            raise UsageError(f"--shard {text}", "is not like 3/8", "give the number of this job and of all jobs")
        index, count = int(match[1]), int(match[2])
        if not 1 <= index <= count:
            raise UsageError(
                f"--shard {text}",
                f"there is no shard {index} of {count}: they count from 1 to the number of shards",
                "with Slurm use --array=1-N and --shard $SLURM_ARRAY_TASK_ID/N",
            )
        return cls(index, count)


def rows_of(shard: Shard, rows: Sequence[PlanRow]) -> list[PlanRow]:
    """The shard's rows in the order of the plan. Each row, largest first, goes to the shard with the least work.

    Rows that will not run belong to a shard as well: it names them, and `retry` tries them again. They are dealt
    in turn.
    """
    refused = [row.line for row in sorted(rows, key=lambda row: row.line) if row.problem]
    lines = set(refused[shard.index - 1 :: shard.count])
    heaviest = sorted((row for row in rows if not row.problem), key=lambda row: (-_weight(row), row.line))
    shards = [(0, index) for index in range(1, shard.count + 1)]
    for row in heaviest:
        load, index = shards[0]
        heapq.heapreplace(shards, (load + _weight(row), index))
        if index == shard.index:
            lines.add(row.line)
    return [row for row in rows if row.line in lines]


def _weight(row: PlanRow) -> int:
    return row.tiles + TILES_PER_SLIDE


@dataclass(frozen=True, slots=True)
class Only:
    """A choice of slides by one column of the list."""

    column: str
    pattern: str
    """With *, ? and [...] as in a shell. It must match the whole cell."""

    @classmethod
    def parse(cls, text: str) -> Only:
        column, sign, pattern = text.partition("=")
        if not sign or not column.strip():
            raise UsageError(f"--only {text}", "is not like patient=P1*", "give COLUMN=PATTERN")
        return cls(column.strip(), pattern.strip())


def select(slides: Sequence[State], filters: Sequence[Only]) -> list[State]:
    """The slides that match, for every column in `filters`, one of its patterns.

    Raises if no slide has such a column, or if no slide matches.
    """
    by_column: dict[str, list[Only]] = {}
    for only in filters:
        by_column.setdefault(only.column, []).append(only)
        columns = sorted({name for state in slides for name in state.cells()})
        if only.column not in columns:
            known = ", ".join(columns)
            raise UsageError(f"--only {only.column}", "there is no such column", f"known: {known}")
    chosen = [state for state in slides if all(_passes(state, any_of) for any_of in by_column.values())]
    if filters and not chosen:
        said = " and ".join(f"{only.column}={only.pattern}" for only in filters)
        raise UsageError(f"--only {said}", "no slide matches", "see wsi-nuc cohort status --slides")
    return chosen


def _passes(state: State, any_of: Sequence[Only]) -> bool:
    cells = state.cells()
    return any(fnmatchcase(cells.get(only.column, ""), only.pattern) for only in any_of)
