"""Waiting for the jobs of a cohort, gently: what is looked at may lie on a busy file server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from wsi_nuc.cohort.state import UNFINISHED, State

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
