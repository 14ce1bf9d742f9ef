"""The one table that every benchmark prints.

A benchmark is a module with `measure(small)`, which returns the rows of this table. With `small` it runs the same
code on as little data as it can, within seconds. The figures then mean nothing, but they show that the code runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

NO_TARGET = "-"


@dataclass(frozen=True)
class Row:
    """One measured number beside its target."""

    what: str
    value: float
    unit: str = ""
    target: str = NO_TARGET
    ok: bool = True
    """Whether the target was met in this run."""
    always: bool = False
    """Whether the target holds at any size, so that a small run has to meet it, too."""


def interleaved(
    *calls: Callable[[], object], rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median seconds of each call, measured in turn (A B A B ...) after one round that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, kept in zip(calls, seconds, strict=True):
            start = clock()
            call()
            if turn:
                kept.append(clock() - start)
    return [statistics.median(kept) for kept in seconds]


def print_rows(rows: Iterable[Row]) -> None:
    listed: Sequence[Row] = list(rows)
    width = max((len(row.what) for row in listed), default=0)
    print(f"{'':<6}{'':<{width}}  {'measured':>12} {'unit':<10} target")
    for row in listed:
        mark = "" if row.target == NO_TARGET else "ok" if row.ok else "MISS"
        print(f"{mark:<6}{row.what:<{width}}  {row.value:>12.4g} {row.unit:<10} {row.target}")
