"""Dask distributed behind the executor's contract: one task a region, a bounded number in flight.

Only paths and counts pass through the scheduler. Models and slide handles live in the worker processes, put
there by `setup`, which a worker plugin calls once in every worker, also in one that was started anew.
"""

from __future__ import annotations

import ipaddress
import logging
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import psutil
from distributed import Client, KilledWorker, LocalCluster, Security, WorkerPlugin, as_completed

from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.executors.base import Outcome, Result, Task
from wsi_nuc.executors.slurm import SlurmOptions, slurm_cluster

SETTINGS = {
    "distributed.worker.daemon": True,
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-saturation": 1.1,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.comm.timeouts.connect": "20s",
    # A region's arrays come and go by the tens of megabytes. Handed back to the system each time, as Dask would
    # have it, they cost a third of the wall in page faults.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 512 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 256 << 20,
}

WORKER_COUNT_AGE_S = 5.0
CLOSE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class ClusterOptions:
    """`address` of a running scheduler, `slurm` for workers as its jobs, or neither for workers on this machine,
    bound to `host` and with `memory_bytes` among them.

    `gpus` asks for one worker a GPU; `tls` holds the paths of CA, certificate and key.
    """

    workers: int = 1
    address: str | None = None
    host: str = "127.0.0.1"
    dashboard: bool = False
    gpus: bool = False
    in_flight: int = 2
    tls: tuple[str | None, str | None, str | None] = (None, None, None)
    memory_bytes: int | None = None
    slurm: SlurmOptions | None = None


class _Setup(WorkerPlugin):  # type: ignore[misc]
    name = "wsi-nuc-setup"

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def setup(self, worker: Any) -> None:
        self.call()


class DaskExecutor:
    """Owns its cluster, or is a guest of the one at `options.address`."""

    def __init__(self, options: ClusterOptions, setup: Callable[[], None]) -> None:
        self._in_flight = options.in_flight
        logging.getLogger("distributed").setLevel(logging.ERROR)
        dask.config.set(SETTINGS)
        security = _security(options) if options.address else None
        with _deaf_to_ctrl_c():
            self._cluster = _own_cluster(options)
        if self._cluster is not None:
            security = getattr(self._cluster, "security", None)
        try:
            self._client = Client(options.address or self._cluster, security=security, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise UsageError(
                f"--scheduler {options.address}",
                f"no scheduler answers there ({error})",
                "start one with `dask scheduler`, or leave the option out for workers on this machine",
            ) from None
        self._client.register_plugin(_Setup(setup))
        self._number = count()
        self._workers, self._counted_at = options.workers, float("-inf")

    @property
    def workers(self) -> int:
        """Workers now; a foreign cluster may grow and shrink, so the count is renewed every few seconds."""
        if time.monotonic() - self._counted_at > WORKER_COUNT_AGE_S:
            self._workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
            self._counted_at = time.monotonic()
        return max(1, self._workers)

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Outcome[Task, Result]]:
        queue = iter(tasks)
        suspects: list[Task] = []
        for task, future in self._finished(function, queue, self._in_flight):
            outcome = _outcome(task, future)
            if isinstance(outcome.error, KilledWorker):
                suspects.append(task)
            else:
                yield outcome
        # A task that merely waited on a worker that died is under suspicion, too: alone, each shows what it is.
        for suspect in suspects:
            for task, future in self._finished(function, iter([suspect]), 1):
                yield _named(_outcome(task, future))

    def _finished(
        self, function: Callable[[Task], Result], queue: Iterator[Task], in_flight: int
    ) -> Iterator[tuple[Task, Any]]:
        """Futures as they finish, with never more than `in_flight` a worker submitted."""
        owner: dict[Any, Task] = {}
        finished = as_completed(loop=self._client.loop)

        def refill() -> None:
            for task in islice(queue, max(0, in_flight * self.workers - len(owner))):
                future = self._client.submit(function, task, key=f"region-{next(self._number)}", pure=False)
                owner[future] = task
                finished.add(future)

        refill()
        try:
            for future in finished:
                yield owner.pop(future), future
                future.release()
                refill()
        finally:
            self._client.cancel(list(owner), force=True)

    def close(self) -> None:
        """Never waits long and leaves no process of its own behind, also in the middle of tasks."""
        with suppress(OSError, TimeoutError):
            if self._cluster is None:
                self._client.unregister_worker_plugin(_Setup.name)
            self._client.close(timeout=CLOSE_TIMEOUT_S)
        if self._cluster is not None:
            with suppress(OSError, TimeoutError):
                self._cluster.close(timeout=CLOSE_TIMEOUT_S)
            for child in multiprocessing.active_children():
                child.kill()


def _outcome(task: Any, future: Any) -> Outcome[Any, Any]:
    """What became of a task. A result that is lost together with its worker is waited for: it is computed anew."""
    try:
        return Outcome(task, future.result())
    except CancelledError as error:
        given_up = SlideError(task, f"the scheduler gave it up ({error})", "run the command again")
        return Outcome(task, None, given_up)
    except Exception as error:  # noqa: BLE001 - an outcome carries any failure of its task, as in the plain loop
        return Outcome(task, None, error)


def _named(outcome: Outcome[Any, Any]) -> Outcome[Any, Any]:
    """The death of workers as an error that a user can act on."""
    if not isinstance(outcome.error, KilledWorker):
        return outcome
    error = SlideError(
        outcome.task,
        "its worker process died again and again while computing it",
        "if memory ran out lower --workers or --region-size; --scheduler serial shows more",
    )
    return Outcome(outcome.task, None, error)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Ctrl-C reaches the whole process group, but only the main process decides what it means: whatever is started
    here, threads and the workers that they start anew later, inherits that SIGINT is blocked."""
    # Starting multiprocessing's tracker unblocks SIGINT in the thread that does it, so it is started first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own_cluster(options: ClusterOptions) -> Any:
    if options.address:
        return None
    return slurm_cluster(options.slurm) if options.slurm else _local_cluster(options)


def _local_cluster(options: ClusterOptions) -> Any:
    """Workers on this machine: plain on loopback; elsewhere TLS with certificates made for this run."""
    settings: dict[str, Any] = {
        "n_workers": options.workers,
        "threads_per_worker": 1,
        "host": options.host,
        # Without an address of its own the scheduler's status server would take the well-known port.
        "scheduler_kwargs": {"dashboard": options.dashboard, "dashboard_address": f"{options.host}:0"},
        "silence_logs": logging.CRITICAL,
    }
    if options.memory_bytes is not None:
        settings["memory_limit"] = max(1, options.memory_bytes // options.workers)
    if not is_loopback(options.host):
        settings |= {"security": Security.temporary(), "protocol": "tls://"}
    if not options.gpus:
        return LocalCluster(**settings)
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        raise UsageError("--device all", "dask-cuda is not installed", "pip install 'wsi-nuc[cuda]'") from None
    # It counts the GPUs itself, and each of its workers sees one of them as the first.
    settings.pop("n_workers")
    settings.pop("memory_limit", None)
    return LocalCUDACluster(**settings)


def _security(options: ClusterOptions) -> Security | None:
    """TLS for a scheduler elsewhere; plain TCP is accepted on this machine only."""
    address = options.address or ""
    scheme, host = urlsplit(address).scheme, urlsplit(address).hostname or ""
    ca, certificate, key = options.tls
    if scheme == "tls":
        for name, path in zip(("tls_ca", "tls_cert", "tls_key"), options.tls, strict=True):
            if path is None or not Path(path).is_file():
                raise UsageError(
                    f"dask.{name}", f"{path or 'nothing'} is no file", "TLS needs all three PEM files"
                )
        return Security(tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)
    if scheme == "tcp" and is_loopback(host):
        return None
    raise UsageError(
        f"--scheduler {address}",
        "it is none of serial, local and slurm, and no address: tls://HOST:PORT, or tcp:// on this machine",
        "correct it; a scheduler on another machine needs TLS: set dask.tls_ca, dask.tls_cert and dask.tls_key",
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_interface(name: str | None) -> bool:
    """True if all addresses of the network interface are this machine's own."""
    addresses = psutil.net_if_addrs().get(name or "", [])
    internet = [one.address for one in addresses if one.family == socket.AF_INET]
    return bool(internet) and all(map(is_loopback, internet))
