"""What a worker process of this machine does: the setup, then Dask's work, until its channel to the run closes.

A setup that comes before the tasks of a run, once in every process that computes any.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic

import dask
from distributed.diskutils import DIR_LOCK_EXT

from wsi_nuc.executors.base import Result, Task
from wsi_nuc.executors.private import QuietWorker, security_with

_lock = threading.Lock()
_ready: set[str] = set()


@dataclass(frozen=True)
class Preparation:
    """`run`: what tells it from the preparations of other runs that this process works for."""

    run: str
    setup: Callable[[], None]

    def __call__(self) -> None:
        with _lock:
            if self.run not in _ready:
                self.setup()
                _ready.add(self.run)


@dataclass(frozen=True)
class Prepared(Generic[Task, Result]):
    """A function for processes of which nobody knows whether they are prepared."""

    preparation: Preparation
    function: Callable[[Task], Result]

    def __call__(self, task: Task) -> Result:
        self.preparation()
        return self.function(task)


READY = "ready"
# Where memory runs out the kernel shall end a worker, which is replaced, rather than the run.
OOM_SCORE = "500"


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker belongs. `address`: of the scheduler; `certificate`: see `private`; `settings`: of Dask."""

    address: str
    host: str
    name: int
    certificate: str
    settings: Mapping[str, Any]


def main(channel: Connection) -> None:
    """Receives two pickles, the setup and the post; sends READY, or the exception that the setup ended with."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    scratch: list[str] = []
    threading.Thread(target=_listen, args=(channel, inbox, scratch), daemon=True).start()
    setup: Callable[[], None] = pickle.loads(inbox.get())
    try:
        setup()
    except Exception as error:  # noqa: BLE001 - guards the process: whatever the setup raises, the run gets
        channel.send(error)
        sys.exit(1)
    asyncio.run(_serve(pickle.loads(inbox.get()), channel, scratch))
    _end(scratch)


def _listen(channel: Connection, inbox: SimpleQueue[bytes], scratch: list[str]) -> None:
    """The channel closes when the run ends, however it ends: nothing that it began goes on."""
    with suppress(EOFError, OSError):
        while True:
            inbox.put(channel.recv_bytes())
    _end(scratch)


async def _serve(post: Post, channel: Connection, scratch: list[str]) -> None:
    dask.config.set(post.settings)
    worker = QuietWorker(
        post.address,
        name=post.name,
        host=post.host,
        nthreads=1,
        memory_limit=0,
        security=security_with(post.certificate),
    )
    scratch.append(worker.local_directory)
    async with worker:
        channel.send(READY)
        await worker.finished()


def _end(scratch: list[str]) -> None:
    """At once, in whatever thread and in the middle of whatever task."""
    for folder in scratch:
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder + DIR_LOCK_EXT).unlink(missing_ok=True)
    os._exit(0)
