"""The one table that every benchmark prints."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured number beside its goal; `ok` says whether the goal was met in this run."""

    what: str
    value: float
    unit: str
    goal: str
    ok: bool


def interleaved(*calls: Callable[[], object], rounds: int = 5) -> list[float]:
    """Median seconds of each call, measured in turn (A B A B ...) after one round that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, kept in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if turn:
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in seconds]


def print_rows(rows: Iterable[Row]) -> None:
    listed: Sequence[Row] = list(rows)
    width = max((len(row.what) for row in listed), default=0)
    for row in listed:
        mark = "ok " if row.ok else "MISS"
        print(f"{mark:<5}{row.what:<{width}}  {row.value:>12.4g} {row.unit:<10} goal {row.goal}")
