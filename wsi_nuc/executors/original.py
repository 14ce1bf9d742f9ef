"""A process that has everything loaded, and of which the workers are copies.

So the memory of what is loaded is shared, and loading takes its time once. Copies are made by `fork`. A process
with threads or a GPU in use cannot be copied, nor can any on systems other than Linux. There, and for a single
worker, the process becomes the worker itself, and each worker has one of its own.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

from wsi_nuc.executors.apart import boot, end_first
from wsi_nuc.executors.base import outcome_of
from wsi_nuc.executors.worker import work

# One thread each, since there is a worker per CPU, and since a process with threads cannot be copied. A region's
# arrays come and go by tens of megabytes; if they were handed back to the system each time, page faults would take
# a third of the run's time. By default oneDNN keeps its code for the last 1024 shapes. A network has about 50, and
# each number of prompts adds several that hardly recur.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_ARENA_MAX": "1",
}
# If memory runs out the kernel should kill a worker, which is replaced, rather than the run.
OOM_SCORE = "500"


class Original:
    """The process, and the next one if it dies."""

    def __init__(self, setup: bytes, environment: Mapping[str, str], copied: bool) -> None:
        """`setup`: the pickle of what loads everything. `copied`: whether several workers come from it."""
        self._order, self._copied, self._used = pickle.dumps((setup, copied)), copied, False
        self._environment = {**os.environ, **ENVIRONMENT, **environment}
        self._channel, self._process = self._boot()

    @property
    def pid(self) -> int:
        return self._process.pid

    def make_worker(self, channel: Connection) -> None:
        """A worker that holds this end of a channel. If it cannot be made that end is closed."""
        if self._used and not self._copied:
            self.kill()
        if self._process.poll() is not None:
            self._channel, self._process = self._boot()
        self._used = True
        with suppress(OSError):
            send_handle(self._channel, channel.fileno(), self.pid)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self, seconds: float) -> None:
        """It ends by itself when its channel closes; after `seconds` it is killed."""
        self._channel.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def _boot(self) -> tuple[Connection, subprocess.Popen[bytes]]:
        ours, theirs = Pipe()
        command = boot("wsi_nuc.executors.original", theirs.fileno())
        with theirs:
            # In a group of its own, so that Ctrl-C only reaches the main process, which decides. And if that one
            # dies the kernel ends a process that is stopped, which could not end by itself.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        with suppress(OSError):
            ours.send(sys.path)
            ours.send_bytes(self._order)
        return ours, process


def main(channel: Connection) -> None:
    """Runs in the process: receives the order, then one end of a channel for each worker to be made."""
    end_first(OOM_SCORE)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with suppress(EOFError, OSError):
        pickled, copied = pickle.loads(channel.recv_bytes())
        setup: Callable[[], None] = partial(_load, pickled)
        if copied:
            worker = _copy_for_each(channel, setup)
            setup = _nothing_to_load
        else:
            worker = Connection(recv_handle(channel))
        work(worker, setup)


def _load(pickled: bytes) -> None:
    """Runs the setup. What it loads stays, and the collector would look through it again and again, which takes a
    seventh of the time."""
    gc.disable()
    try:
        setup: Callable[[], None] = pickle.loads(pickled)
        setup()
    finally:
        gc.enable()


def _copy_for_each(channel: Connection, setup: Callable[[], None]) -> Connection:
    """Returns in each copy. In the original it ends with EOFError when the run does."""
    failure = outcome_of(lambda _: setup(), None).error
    # What a copy does not write to stays shared, and the collector writes to all that it looks at.
    gc.collect()
    gc.freeze()
    # Nobody waits for the copies here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        worker = Connection(recv_handle(channel))
        if failure is not None:
            worker.send(failure)
            sys.exit(1)
        try:
            is_copy = os.fork() == 0
        except OSError as error:
            worker.send(error)
            is_copy = False
        if is_copy:
            channel.close()
            os.setpgid(0, 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return worker
        worker.close()


def _nothing_to_load() -> None:
    """The setup of a copy: its original has loaded everything."""
