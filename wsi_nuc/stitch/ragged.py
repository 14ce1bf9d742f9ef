"""Index arithmetic for rows of unequal length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wsi_nuc.types import Int64


def ranges(starts: Int64, counts: Int64) -> Int64:
    """starts[0], starts[0] + 1, ... (counts[0] numbers), then the same from starts[1], and so on."""
    before = np.cumsum(counts) - counts
    numbers: Int64 = np.arange(int(counts.sum())) + np.repeat(starts - before, counts)
    return numbers


def chunks(counts: Int64, at_once: int) -> Iterator[tuple[int, int]]:
    """Stretches of rows whose counts add up to about `at_once`, to bound temporary arrays; no row is split."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + at_once, side="right")), start + 1)
        yield start, stop
        start = stop
