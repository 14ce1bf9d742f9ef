"""Makes a call in a process of its own. If something kills that process the caller lives on and learns of it.

`boot` is the command of such a process, which talks to the one that started it. Workers are started by it, too.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from wsi_nuc.executors.base import outcome_of

CODE = (
    "import sys; from multiprocessing.connection import Connection; channel = Connection(int(sys.argv[1]));"
    "sys.path[:] = channel.recv(); from {module} import main; main(channel)"
)


def boot(module: str, channel: int) -> list[str]:
    """The command of the process.

    It receives `sys.path` through the channel and calls the module's `main` with it.
    """
    return [sys.executable, "-P", "-c", CODE.format(module=module), str(channel)]


# If memory runs out the kernel should kill this process rather than the worker that waits for it.
OOM_SCORE = "900"

Result = TypeVar("Result")


def end_first(score: str) -> None:
    """If memory runs out the kernel ends this process before those with a lower score."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(score)


class Died(Exception):
    """The process ended before its call did."""

    def __init__(self, returncode: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode

    def __str__(self) -> str:
        if self.returncode >= 0:
            return f"exit code {self.returncode}"
        with suppress(ValueError):
            return signal.Signals(-self.returncode).name
        return f"signal {-self.returncode}"


def call_apart(call: Callable[[], Result]) -> Result:
    """Returns or raises what the call does, or raises Died.

    The call and its result travel as pickles. The process ends when this one does.
    """
    ours, theirs = Pipe()
    with ours:
        with theirs:
            command = boot("wsi_nuc.executors.apart", theirs.fileno())
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        try:
            ours.send(sys.path)
            ours.send_bytes(pickle.dumps(call))
            result, error = ours.recv()
        except (EOFError, OSError):
            raise Died(process.wait()) from None
    process.wait()
    if error is not None:
        raise error
    done: Result = result
    return done


def main(channel: Connection) -> None:
    """Runs in the process: receives the call, and sends its result and the exception that it raised."""
    end_first(OOM_SCORE)
    call: Callable[[], object] = pickle.loads(channel.recv_bytes())
    threading.Thread(target=_end_with_caller, args=(channel,), daemon=True).start()
    # A result that cannot be pickled is a failure of the call, too.
    outcome = outcome_of(lambda call: pickle.dumps((call(), None)), call)
    channel.send_bytes(outcome.result or pickle.dumps((None, outcome.error)))


def _end_with_caller(channel: Connection) -> None:
    with suppress(EOFError, OSError):
        channel.recv_bytes()
    os._exit(1)
