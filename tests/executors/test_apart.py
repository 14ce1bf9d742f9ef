"""A call in a process of its own: its result, its error, or how the process died."""

from __future__ import annotations

import os
from functools import partial

import pytest

from tests.executors import tasks
from wsi_nuc.executors.apart import Died, call_apart
from wsi_nuc.executors.base import alone


def test_a_call_apart_is_done_elsewhere() -> None:
    assert call_apart(os.getpid) != os.getpid()


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        call_apart(partial(tasks.refuse_odd, 3))


def test_its_death_is_reported_and_survived() -> None:
    with pytest.raises(Died, match="SIGKILL"):
        call_apart(partial(tasks.always_die, 2))
    with pytest.raises(Died, match="exit code 7"):
        call_apart(partial(os._exit, 7))


def test_a_task_may_say_how_it_is_done_alone() -> None:
    class Told(str):
        def alone(self) -> str:
            return f"{self} alone"

    assert alone(Told("a")) == "a alone"
    assert alone("a") == "a"
