"""How a signal stops a command: in order, with an exit code of its own, and without leaving workers behind."""

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
    """The first SIGINT, SIGTERM or SIGUSR1 stops the body in order, the second one at once.

    `kept`: what the message says is kept, in place of finished regions. `answers`: makes the JSON lines that are
    still printed after a stop; `needed` names the modules that it imports.
    """
    try:
        _raise_on_signals(["psutil", *needed])
        yield
    except Interrupted as stop:
        stop = Interrupted(stop.signal_name, kept) if kept else stop
        _leave(stop, answers(stop))


def answer(document: Mapping[str, Any]) -> None:
    """Print one line of JSON. A reader that has gone away does not stop the run."""
    try:
        print(json.dumps(document), flush=True)  # noqa: T201 - the answer of --json
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _raise_on_signals(needed: Sequence[str]) -> None:
    """Raise Interrupted on a signal, but only once the `needed` modules are imported.

    An import that is broken off leaves half a module behind, and the end of the command needs these modules.
    """
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
    """End the process. A thread may still be writing a result that is never published; the next run removes it."""
    import psutil

    # Nobody else knows workers that have only just started.
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    for document in answers:
        answer(document)
    print(f"wsi-nuc: {stop}", file=sys.stderr, flush=True)  # noqa: T201 - this is the printing layer
    os._exit(stop.exit_code)
