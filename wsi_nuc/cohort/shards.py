"""Which job does which slides: decided by the plan alone, so that jobs need not speak to each other.

`--only COLUMN=PATTERN`: a part of the cohort by any column of its list.
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


@dataclass(frozen=True, slots=True)
class Only:
    """`pattern` with *, ? and [...] as in a shell; it must match the whole cell."""

    column: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> Only:
        column, sign, pattern = text.partition("=")
        if not sign or not column.strip():
            raise UsageError(f"--only {text}", "is not like patient=P1*", "give COLUMN=PATTERN")
        return cls(column.strip(), pattern.strip())


def select(found: Sequence[State], filters: Sequence[Only]) -> list[State]:
    """Those that match one of the patterns in every column that is asked for.

    A column that no slide has, or an empty selection, is told.
    """
    by_column: dict[str, list[Only]] = {}
    for one in filters:
        by_column.setdefault(one.column, []).append(one)
        columns = sorted({name for state in found for name in state.cells()})
        if one.column not in columns:
            known = ", ".join(columns)
            raise UsageError(f"--only {one.column}", "there is no such column", f"known: {known}")
    chosen = [state for state in found if all(_passes(state, any_of) for any_of in by_column.values())]
    if filters and not chosen:
        said = " and ".join(f"{one.column}={one.pattern}" for one in filters)
        raise UsageError(f"--only {said}", "no slide is like that", "see wsi-nuc cohort status --slides")
    return chosen


def _passes(state: State, any_of: Sequence[Only]) -> bool:
    cells = state.cells()
    return any(fnmatchcase(cells.get(one.column, ""), one.pattern) for one in any_of)


# What a slide costs beside its tiles, so that a shard of many empty slides is not taken for no work.
TILES_A_SLIDE = 2


@dataclass(frozen=True, slots=True)
class Shard:
    """`index` of `count`, from 1."""

    index: int
    count: int

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
    """The shard's rows in the order of the plan: each row, largest first, goes to the shard with the least to do.

    Rows that will not run belong to a shard, too: it names them, and tries them again if that is wanted. They are
    dealt in turn.
    """
    refused = [row.line for row in sorted(rows, key=lambda row: row.line) if row.problem]
    mine = set(refused[shard.index - 1 :: shard.count])
    heaviest = sorted((row for row in rows if not row.problem), key=lambda row: (-_weight(row), row.line))
    shards = [(0, index) for index in range(1, shard.count + 1)]
    for row in heaviest:
        load, index = shards[0]
        heapq.heapreplace(shards, (load + _weight(row), index))
        if index == shard.index:
            mine.add(row.line)
    return [row for row in rows if row.line in mine]


def _weight(row: PlanRow) -> int:
    return row.tiles + TILES_A_SLIDE
