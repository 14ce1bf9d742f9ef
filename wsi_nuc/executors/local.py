"""Workers on this machine: a scheduler in this process, and one supervised process per worker.

The processes are copies of one that has everything loaded (`original`), if they can be.

A place that loses its process gets a new one. A process is lost when it has ended, or has used no processor time
for SILENT_S seconds: even a worker that only waits for work answers its scheduler. A place whose process died
MOST_DEATHS times in a row before it was ready is given up, and the others do its work. If no place is left the run
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
from typing import Any

import dask
import psutil
from distributed import Scheduler, Security, SpecCluster

from wsi_nuc.errors import Interrupted, WsiNucError
from wsi_nuc.executors.original import Original
from wsi_nuc.executors.place import Place
from wsi_nuc.executors.private import QuietScheduler, own_certificate, security_with
from wsi_nuc.executors.watch import OutOfMemory, Seen, Stopwatch
from wsi_nuc.executors.worker import Post

SILENT_S = 25
MOST_DEATHS = 5
# Of the memory limit; the rest is for what processes take between two looks.
SHARE = 0.9
CLOSE_S = 2.0
MIB = 1 << 20


class LocalCrew:
    """A scheduler in this process and its workers on this machine."""

    def __init__(
        self,
        setup: Callable[[], None],
        environments: Sequence[Mapping[str, str]],
        copied: bool,
        host: str,
        settings: Mapping[str, Any],
        dashboard: bool = False,
        patience_s: float = 300,
        memory_bytes: float = math.inf,
    ) -> None:
        """`environments`: one per worker, with what the worker has in its environment beside ours.

        `copied`: whether the workers may be copies of one process. If so their environments are equal.
        """
        pickled = pickle.dumps(setup)
        copied = copied and sys.platform == "linux" and len(environments) > 1
        self._lock, self._stopwatch = threading.Lock(), Stopwatch()
        self.patience_s, self._memory_bytes, self._note = patience_s, memory_bytes, ""
        # Why places were given up, as far as their setup could say so.
        self._error: Exception | None = None
        try:
            # The workers import what they need while the scheduler starts here.
            self._originals = [Original(pickled, extra, copied) for extra in environments[: 1 if copied else None]]
            originals = self._originals * len(environments) if copied else self._originals
            self._places = [Place(number, original) for number, original in enumerate(originals)]
            self.security = security_with(own_certificate())
            self.contact = scheduler_only(host, dashboard, self.security)
        except (OSError, RuntimeError) as error:
            raise Interrupted(f"workers and a scheduler that could not be started here ({error})") from None
        self._posting = (self.contact.scheduler_address, host, own_certificate(), settings)
        for place in self._places:
            self._post(place)

    @property
    def wanted(self) -> int:
        return len(self._places)

    def tend(self, client: Any) -> Seen:
        with self._lock:
            passed_s = self._stopwatch.passed_s()
            for place in list(self._places):
                self._look_after(place, passed_s)
            self._stay_within_memory()
            note, self._note = self._note, ""
            return Seen(len(self.contact.scheduler.workers), note)

    def _look_after(self, place: Place, passed_s: float) -> None:
        if not place.is_dead():
            if place.silent_s(passed_s) > SILENT_S:
                place.kill()
        elif place.deaths < MOST_DEATHS:
            self._begin(place)
        else:
            self._places.remove(place)
            self._error = place.error or self._error
            if not self._places:
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
        pids = {os.getpid(), *(place.pid for place in self._places), *(each.pid for each in self._originals)}
        taken = taken_bytes(pids, limit)
        if taken <= limit or not self._places:
            return
        place = self._places.pop()
        place.kill()
        place.wait(CLOSE_S)
        said = f"{taken / MIB:,.0f} of {self._memory_bytes / MIB:,.0f} MiB of memory are taken"
        if self._places:
            self._note = f"{said}: the run goes on with {len(self._places)} of its workers"
        else:
            self._begin(place)
            self._places.append(place)
            raise OutOfMemory(f"{said} with a single worker")

    def _begin(self, place: Place) -> None:
        try:
            place.start()
        except OSError as error:
            # As if the process had died: the next look tries again.
            place.deaths, place.error = place.deaths + 1, error
        else:
            self._post(place)

    def _post(self, place: Place) -> None:
        address, host, certificate, settings = self._posting
        place.send(Post(address, host, place.number, certificate, settings))

    def close(self) -> None:
        with self._lock:
            places, self._places = self._places, []
        for place in places:
            place.dismiss()
        deadline = time.monotonic() + CLOSE_S
        for place in places:
            place.wait(max(0.0, deadline - time.monotonic()))
        for original in self._originals:
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
