"""`--only COLUMN=PATTERN`: a part of the cohort by any column of its list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
