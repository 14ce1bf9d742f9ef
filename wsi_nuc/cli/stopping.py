"""A command that is stopped by a signal: in order, with its own exit code, and no worker left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

from wsi_nuc.errors import INTERRUPTED, Interrupted

Documents = Iterable[Mapping[str, Any]]


@contextmanager
def stoppable(
    kept: str = "",
    needed: Sequence[str] = (),
    answers: Callable[[Interrupted], Documents] = lambda stop: (),
) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGUSR1 stops what is done here in order; the second one at once.

    `kept`: what the user is told to be left, in place of finished regions. `answers`: what is still printed for
    programs; `needed` are the modules that it imports.
    """
    try:
        _raise_on_signals(["psutil", *needed])
        yield
    except Interrupted as stop:
        told = Interrupted(stop.signal_name, kept) if kept else stop
        _leave(told, answers(told))


def answer(document: Mapping[str, Any]) -> None:
    """One line of JSON. A reader that has gone away does not stop the run."""
    try:
        print(json.dumps(document), flush=True)  # noqa: T201 - the answer of --json
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _raise_on_signals(needed: Sequence[str]) -> None:
    """A signal that comes while the `needed` modules are imported waits until they are: an import that is broken
    off leaves half a module behind, and what has to be done at the end could not be done."""
    signals: list[str] = []
    imported = False

    def stop(number: int, _frame: object) -> None:
        signals.append(signal.Signals(number).name)
        if len(signals) > 1:
            os._exit(INTERRUPTED)
        if imported:
            raise Interrupted(signals[0])

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
    for name in needed:
        import_module(name)
    imported = True
    if signals:
        raise Interrupted(signals[0])


def _leave(stop: Interrupted, answers: Documents) -> NoReturn:
    """A thread may still be writing a result that nobody will see; the next run cleans up after it."""
    import psutil

    # Workers that were only just starting are not known to anybody else.
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    for document in answers:
        answer(document)
    print(f"wsi-nuc: {stop}", file=sys.stderr, flush=True)  # noqa: T201 - this is the printing layer
    os._exit(stop.exit_code)
