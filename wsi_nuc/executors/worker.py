"""What a worker process does.

On this machine (`work`) it runs the setup, then works for Dask until its channel to the run closes. Workers that
others have started run the setup before their first task (`Prepared`).
"""

from __future__ import annotations

import asyncio
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

from wsi_nuc.executors.base import Result, Task, outcome_of
from wsi_nuc.executors.private import QuietWorker, security_with

READY = "ready"


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is told about the run that it works for: how to reach the scheduler, and under which name."""

    address: str
    """Of the scheduler."""
    host: str
    """The address that the worker is bound to."""
    name: int
    """The number of its slot."""
    certificate: str
    """See `private.own_certificate`."""
    settings: Mapping[str, Any]
    """Of Dask."""


def work(channel: Connection, setup: Callable[[], None]) -> None:
    """Receives its post. Sends its process number, then READY, or the exception that the setup raised."""
    channel.send(os.getpid())
    inbox: SimpleQueue[bytes] = SimpleQueue()
    scratch: list[str] = []
    threading.Thread(target=_listen, args=(channel, inbox, scratch), daemon=True).start()
    failure = outcome_of(lambda _: setup(), None).error
    if failure is not None:
        channel.send(failure)
        sys.exit(1)
    asyncio.run(_serve(pickle.loads(inbox.get()), channel, scratch))
    _end(scratch)


def _listen(channel: Connection, inbox: SimpleQueue[bytes], scratch: list[str]) -> None:
    """End the worker with an empty message, or when the channel closes, which it does however the run ends."""
    with suppress(EOFError, OSError):
        while message := channel.recv_bytes():
            inbox.put(message)
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
    """End the process at once, in any thread and in the middle of any task."""
    for folder in scratch:
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder + DIR_LOCK_EXT).unlink(missing_ok=True)
    os._exit(0)


_lock = threading.Lock()
_ready: set[str] = set()


@dataclass(frozen=True)
class Preparation:
    """The setup of a run, which every process calls once before its first task."""

    run: str
    """Tells it apart from the setups of other runs that this process works for."""
    setup: Callable[[], None]

    def __call__(self) -> None:
        with _lock:
            if self.run not in _ready:
                self.setup()
                _ready.add(self.run)


@dataclass(frozen=True)
class Prepared(Generic[Task, Result]):
    """A function that first makes sure that its process is prepared."""

    preparation: Preparation
    function: Callable[[Task], Result]

    def __call__(self, task: Task) -> Result:
        self.preparation()
        return self.function(task)
