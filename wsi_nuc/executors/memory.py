"""What the processes of a run take of a memory that is limited for all of them together."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

# The rest is for what comes between two looks.
SHARE = 0.9


def taken_bytes(pids: Iterable[int], enough: float) -> int:
    """Of the processes together. Exact, with shared pages counted once, only above `enough`: that takes time."""
    processes = list(pids)
    rough = sum(_bytes(pid, "rss") for pid in processes)
    return rough if rough <= enough else sum(_bytes(pid, "pss") for pid in processes)


def _bytes(pid: int, kind: str) -> int:
    try:
        process = psutil.Process(pid)
        taken = process.memory_info() if kind == "rss" else process.memory_full_info()
        return int(getattr(taken, kind, taken.rss))
    except psutil.Error:
        return 0
