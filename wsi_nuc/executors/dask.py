"""Dask distributed as an executor: one task per region, with a bounded number in flight.

Only paths and counts pass through the scheduler. Models and slide handles live in the worker processes. Every
worker, also one that replaces a lost one, calls `setup` once to get them ready.

The scheduler may be somebody else's: then it is reached by TLS, and asked whether it still answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, KilledWorker, Security
from distributed.client import ClosedClientError

from wsi_nuc.errors import Interrupted, SlideError, UsageError
from wsi_nuc.events import Emit, ignore
from wsi_nuc.executors.base import Outcome, Result, Task, alone, outcome_of
from wsi_nuc.executors.local import LocalCrew
from wsi_nuc.executors.private import is_loopback, scratch_folder
from wsi_nuc.executors.slurm import SlurmCrew, SlurmOptions
from wsi_nuc.executors.watch import TICK_S, Crew, Seen, Watch, scheduler_lost
from wsi_nuc.executors.worker import Preparation, Prepared

STEP_S = 0.5
ANSWER_S = 20
# Paths of the CA, the certificate and the key.
Files = tuple[str | None, str | None, str | None]
SETTINGS = {
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-saturation": 1.1,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.comm.timeouts.connect": "20s",
}
Fetched = Future[Any]
LOST = "scheduler-connection-lost"
CLOSE_TIMEOUT_S = 3.0
MEMORY_REMEDY = "lower --workers or --region-size"


@dataclass(frozen=True)
class GivenCrew:
    """A running scheduler. Whoever started its workers also replaces them."""

    contact: str
    """Its address."""
    security: Security | None
    patience_s: float
    """How long a run may be without any worker."""
    wanted: None = None
    """Nobody here decides how many workers there are."""

    def tend(self, client: Any) -> Seen:
        """Ask how many workers there are.

        A scheduler that is stopped keeps its connections but does not answer.
        """
        asked = asyncio.run_coroutine_threadsafe(client.scheduler.ncores(), client.loop.asyncio_loop)
        # In steps, so that time in which this process itself was stopped does not count.
        for _ in range(int(ANSWER_S / STEP_S)):
            try:
                return Seen(len(asked.result(STEP_S)))
            except TimeoutError:
                continue
            except OSError:
                break
        asked.cancel()
        raise scheduler_lost(self.contact)

    def close(self) -> None:
        pass


def security_for(address: str, files: Files) -> Security | None:
    """TLS with these PEM files; plain TCP is accepted on this machine only."""
    scheme, host = urlsplit(address).scheme, urlsplit(address).hostname or ""
    ca, certificate, key = files
    if scheme == "tls":
        for name, path in zip(("tls_ca", "tls_cert", "tls_key"), files, strict=True):
            if path is None or not Path(path).is_file():
                raise UsageError(
                    f"dask.{name}", f"{path or 'nothing'} is not a file", "TLS needs all three PEM files"
                )
        return Security(tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)
    if scheme == "tcp" and is_loopback(host):
        return None
    raise UsageError(
        f"--scheduler {address}",
        "it is neither serial, local or slurm nor an address: tls://HOST:PORT, or tcp:// on this machine",
        "correct it; a scheduler on another machine needs TLS: set dask.tls_ca, dask.tls_cert and dask.tls_key",
    )


@dataclass(frozen=True)
class ClusterOptions:
    """Where the workers are. Without `address` and `slurm` they are processes on this machine."""

    workers: int = 1
    """On this machine."""
    address: str | None = None
    """Of a running scheduler, which has workers of its own."""
    host: str = "127.0.0.1"
    """The address that workers on this machine are bound to."""
    dashboard: bool = False
    environments: Sequence[Mapping[str, str]] = ()
    """One environment for each worker on this machine, in place of `workers` plain ones."""
    copied: bool = False
    """Whether workers on this machine may be copies of one process that has run the setup.

    Not where the setup starts threads or uses a GPU.
    """
    in_flight: int = 2
    """Tasks that are submitted per worker."""
    tls: Files = (None, None, None)
    """For `address`."""
    memory_bytes: int | None = None
    """Limit for all processes on this machine together."""
    slurm: SlurmOptions | None = None
    """For workers as jobs of Slurm."""
    patience_s: float = 300
    """How long a run may be without any worker."""


class DaskExecutor:
    """Runs tasks in a Dask cluster: one of its own, or the one at `options.address`."""

    def __init__(self, options: ClusterOptions, setup: Callable[[], None], emit: Emit = ignore) -> None:
        self._in_flight, self._number = options.in_flight, count()
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        dask.config.set({**SETTINGS, "temporary-directory": scratch_folder()})
        self._preparation = Preparation(uuid.uuid4().hex, setup)
        self._crew = _crew(options, self._preparation)
        try:
            self._client = Client(self._crew.contact, security=self._crew.security, set_as_default=False)
        except (OSError, TimeoutError) as error:
            self._crew.close()
            raise _unreachable(options.address, error) from None
        self._watch = Watch(self._client, self._crew, emit)

    @property
    def workers(self) -> int:
        return self._watch.workers

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Outcome[Task, Result]]:
        queue = iter(tasks)
        suspects: list[Task] = []
        for outcome in self._outcomes(function, queue, self._in_flight):
            if isinstance(outcome.error, KilledWorker):
                suspects.append(outcome.task)
            else:
                yield outcome
        # Tasks that merely waited on a worker that died are suspects as well. Run alone, each shows whether it
        # kills.
        for suspect in suspects:
            for outcome in self._outcomes(function, iter([alone(suspect)]), 1):
                yield _named(outcome)

    def _outcomes(
        self, function: Callable[[Task], Result], queue: Iterator[Task], in_flight: int
    ) -> Iterator[Outcome[Task, Result]]:
        """Outcomes as they come. At most `in_flight` tasks per worker are submitted at a time."""
        call = Prepared(self._preparation, function)
        owner: dict[Fetched, tuple[Task, Any]] = {}
        shortages = self._watch.shortages
        finished: SimpleQueue[Fetched] = SimpleQueue()

        def refill() -> None:
            for task in islice(queue, max(0, in_flight * self.workers - len(owner))):
                future = self._client.submit(call, task, key=f"region-{next(self._number)}", pure=False)
                fetched = self._fetched(future)
                owner[fetched] = task, future
                fetched.add_done_callback(finished.put)

        def give_up() -> None:
            self._client.cancel([future for _, future in owner.values()], force=True)

        try:
            refill()
            while owner:
                self._watch.check()
                if self._watch.shortages > shortages:
                    shortages = self._watch.shortages
                    give_up()
                    for task, _ in owner.values():
                        yield Outcome(task, None, SlideError(task, self._watch.shortage, MEMORY_REMEDY))
                    owner.clear()
                with suppress(Empty):
                    fetched = finished.get(timeout=TICK_S)
                    if fetched in owner:
                        task, future = owner.pop(fetched)
                        yield self._outcome(task, fetched)
                        future.release()
                refill()
        except ClosedClientError:
            raise scheduler_lost(self._crew.contact) from None
        finally:
            with suppress(ClosedClientError):
                give_up()

    def _fetched(self, future: Any) -> Fetched:
        """The future of the result on this side. A result that is lost with its worker is computed again."""

        async def fetch() -> Any:
            return await future

        return asyncio.run_coroutine_threadsafe(fetch(), self._client.loop.asyncio_loop)

    def _outcome(self, task: Task, fetched: Fetched) -> Outcome[Task, Any]:
        """The outcome of a task that is over."""
        outcome = outcome_of(lambda _: fetched.result(), task)
        if not isinstance(outcome.error, CancelledError):
            return outcome
        if getattr(outcome.error, "reason", "") == LOST:
            raise scheduler_lost(self._crew.contact)
        given_up = SlideError(task, f"the scheduler gave it up ({outcome.error})", "run the command again")
        return Outcome(task, None, given_up)

    def close(self) -> None:
        """Never waits long, and leaves no process of its own behind, even in the middle of tasks."""
        self._watch.close()
        with suppress(OSError, TimeoutError):
            self._client.close(timeout=CLOSE_TIMEOUT_S)
        self._crew.close()


def _named(outcome: Outcome[Any, Any]) -> Outcome[Any, Any]:
    """The outcome, with the death of workers turned into an error that a user can act on."""
    if not isinstance(outcome.error, KilledWorker):
        return outcome
    error = SlideError(
        outcome.task,
        "its worker process died again and again while computing it",
        f"if memory ran out {MEMORY_REMEDY}; --scheduler serial shows more",
    )
    return Outcome(outcome.task, None, error)


def _unreachable(address: str | None, error: Exception) -> UsageError | Interrupted:
    if address is None:
        return Interrupted(f"a scheduler that could not be reached at its start ({error})")
    return UsageError(
        f"--scheduler {address}",
        f"no scheduler answers there ({error})",
        "start one with `dask scheduler`, or leave the option out for workers on this machine",
    )


def _crew(options: ClusterOptions, preparation: Preparation) -> Crew:
    if options.address:
        return GivenCrew(options.address, security_for(options.address, options.tls), options.patience_s)
    if options.slurm:
        return SlurmCrew(options.slurm)
    return LocalCrew(
        preparation,
        options.environments or [{}] * options.workers,
        options.copied,
        options.host,
        {**SETTINGS, "temporary-directory": scratch_folder()},
        options.dashboard,
        options.patience_s,
        options.memory_bytes or math.inf,
    )
