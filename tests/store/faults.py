"""Make the n-th durable call fail, or count the calls."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_nuc.store import durable


@contextmanager
def before_call(hook: object) -> Iterator[None]:
    previous, durable.before = durable.before, hook  # type: ignore[assignment]
    try:
        yield
    finally:
        durable.before = previous


@contextmanager
def failing(number: int, code: int = errno.ENOSPC, only: str = "") -> Iterator[None]:
    """The `number`-th durable call (of the kind `only`, if given), counted from 0, raises an OSError."""
    calls = itertools.count()

    def hook(operation: str, path: Path) -> None:
        if only in ("", operation) and next(calls) == number:
            raise OSError(code, os.strerror(code), str(path))

    with before_call(hook):
        yield


@contextmanager
def killing(number: int) -> Iterator[None]:
    """The process is killed right before its `number`-th durable call."""
    calls = itertools.count()

    def hook(operation: str, path: Path) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    with before_call(hook):
        yield


@contextmanager
def recording() -> Iterator[list[str]]:
    """The kinds of the durable calls, in their order."""
    seen: list[str] = []
    with before_call(lambda operation, path: seen.append(operation)):
        yield seen


def no_flock(fd: int, operation: int) -> None:
    """What a file system without locks answers."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
