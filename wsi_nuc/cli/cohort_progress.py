"""How far the looking at slides has come, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 5.0


@contextmanager
def looking(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yields what is to be told: slides looked at, slides in all. A line every few seconds, on terminals, too."""
    last = time.monotonic()

    def told(done: int, of: int) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last > EVERY_S:
            last = time.monotonic()
            print(f"looked at {done:,} of {of:,} slides", file=sys.stderr, flush=True)  # noqa: T201

    yield told
