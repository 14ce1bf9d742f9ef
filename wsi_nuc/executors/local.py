"""Workers on this machine: a scheduler in this process, and one supervised process per worker.

The processes are copies of one that has everything loaded (`original`), if they can be.

A slot that loses its process gets a new one. A process is lost when it has ended, or has used no processor time
for SILENT_S seconds: even a worker that only waits for work answers its scheduler. A slot whose process died
MOST_DEATHS times in a row before it was ready is given up, and the others do its work. If no slot is left the run
ends.

Memory is limited for all processes together. If they take more than SHARE of it one worker is given up. If only
one worker is left, its task is given up.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dask
import psutil
from distributed import Scheduler, Security, SpecCluster

from wsi_nuc.errors import Interrupted, WsiNucError
from wsi_nuc.executors.original import Original
from wsi_nuc.executors.private import QuietScheduler, own_certificate, security_with
from wsi_nuc.executors.watch import OutOfMemory, Seen, Stopwatch
from wsi_nuc.executors.worker import Post
from wsi_nuc.executors.worker_slot import WorkerSlot

SILENT_S = 25
MOST_DEATHS = 5
# Of the memory limit; the rest is for what processes take between two looks.
SHARE = 0.9
CLOSE_S = 2.0
MIB = 1 << 20


@dataclass(frozen=True)
class Workers:
    """What the workers of a crew are."""

    setup: Callable[[], None]
    """What each of them must have run before it works."""
    environments: Sequence[Mapping[str, str]]
    """One per worker, with what it has in its environment beside ours."""
    copied: bool = False
    """Whether they may be copies of one process. If so their environments are equal."""

    def originals(self) -> list[Original]:
        """One per worker; the same one for all if they are copies of it."""
        pickled, count = pickle.dumps(self.setup), len(self.environments)
        if self.copied and sys.platform == "linux" and count > 1:
            return [Original(pickled, self.environments[0], copied=True)] * count
        return [Original(pickled, environment, copied=False) for environment in self.environments]


class LocalCrew:
    """A scheduler in this process and its workers on this machine."""

    def __init__(
        self,
        workers: Workers,
        host: str,
        settings: Mapping[str, Any],
        dashboard: bool = False,
        patience_s: float = 300,
        memory_bytes: float = math.inf,
    ) -> None:
        self._lock, self._stopwatch = threading.Lock(), Stopwatch()
        self.patience_s, self._memory_bytes, self._note = patience_s, memory_bytes, ""
        # Why slots were given up, as far as their setup could say so.
        self._error: Exception | None = None
        try:
            # The workers import what they need while the scheduler starts here.
            self._originals = workers.originals()
            self._slots = [WorkerSlot(number, original) for number, original in enumerate(self._originals)]
            self.security = security_with(own_certificate())
            self.contact = scheduler_only(host, dashboard, self.security)
        except (OSError, RuntimeError) as error:
            raise Interrupted(f"workers and a scheduler that could not be started here ({error})") from None
        self._posting = (self.contact.scheduler_address, host, own_certificate(), settings)
        for slot in self._slots:
            self._post(slot)

    @property
    def wanted(self) -> int:
        return len(self._slots)

    def tend(self, client: Any) -> Seen:
        with self._lock:
            passed_s = self._stopwatch.passed_s()
            for slot in list(self._slots):
                self._look_after(slot, passed_s)
            self._stay_within_memory()
            note, self._note = self._note, ""
            return Seen(len(self.contact.scheduler.workers), note)

    def _look_after(self, slot: WorkerSlot, passed_s: float) -> None:
        if not slot.is_dead():
            if slot.silent_s(passed_s) > SILENT_S:
                slot.kill()
        elif slot.deaths < MOST_DEATHS:
            self._begin(slot)
        else:
            self._slots.remove(slot)
            self._error = slot.error or self._error
            if not self._slots:
                again = f"workers that died {MOST_DEATHS} times in a row before they were ready"
                said = f" ({self._error})" if self._error else ""
                if isinstance(self._error, WsiNucError):
                    raise self._error
                raise Interrupted(f"{again}{said}; if memory ran out lower --workers")

    def _stay_within_memory(self) -> None:
        """Give up a worker if all together come close to the limit.

        The last worker starts again without its task.
        """
        limit = SHARE * self._memory_bytes
        pids = {os.getpid(), *(slot.pid for slot in self._slots), *(each.pid for each in self._originals)}
        taken = taken_bytes(pids, limit)
        if taken <= limit or not self._slots:
            return
        slot = self._slots.pop()
        slot.kill()
        slot.wait(CLOSE_S)
        said = f"{taken / MIB:,.0f} of {self._memory_bytes / MIB:,.0f} MiB of memory are taken"
        if self._slots:
            self._note = f"{said}: the run goes on with {len(self._slots)} of its workers"
        else:
            self._begin(slot)
            self._slots.append(slot)
            raise OutOfMemory(f"{said} with a single worker")

    def _begin(self, slot: WorkerSlot) -> None:
        try:
            slot.start()
        except OSError as error:
            # As if the process had died: the next look tries again.
            slot.deaths, slot.error = slot.deaths + 1, error
        else:
            self._post(slot)

    def _post(self, slot: WorkerSlot) -> None:
        address, host, certificate, settings = self._posting
        slot.send(Post(address, host, slot.number, certificate, settings))

    def close(self) -> None:
        with self._lock:
            slots, self._slots = self._slots, []
        for slot in slots:
            slot.dismiss()
        deadline = time.monotonic() + CLOSE_S
        for slot in slots:
            slot.wait(max(0.0, deadline - time.monotonic()))
        for original in set(self._originals):
            original.close(max(0.0, deadline - time.monotonic()))
        with suppress(OSError, TimeoutError):
            self.contact.close(timeout=CLOSE_S)


def scheduler_only(host: str, dashboard: bool, security: Security) -> SpecCluster:
    scheduler = {
        "cls": Scheduler if dashboard else QuietScheduler,
        "options": {
            "host": host,
            "protocol": "tls://",
            "security": security,
            "dashboard": dashboard,
            # Without this the dashboard would take its well-known port.
            "dashboard_address": f"{host}:0",
        },
    }
    # We watch ourselves whether a worker lives: the scheduler's clock goes on while this process is stopped.
    with dask.config.set({"distributed.scheduler.worker-ttl": None}):
        return SpecCluster({}, scheduler, security=security, silence_logs=logging.CRITICAL)


def taken_bytes(pids: Iterable[int], enough: float) -> int:
    """Memory of all processes together.

    Only above `enough` it is exact (shared pages count once): that is slow.
    """
    processes = list(pids)
    rough = sum(_bytes(pid, "rss") for pid in processes)
    return rough if rough <= enough else sum(_bytes(pid, "pss") for pid in processes)


def _bytes(pid: int, kind: str) -> int:
    try:
        process = psutil.Process(pid)
        taken = process.memory_info() if kind == "rss" else process.memory_full_info()
        return int(getattr(taken, kind, taken.rss))
    except psutil.Error:
        return 0
