"""The processes of the soak: the command, its workers, and a Dask cluster that others started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

ORPHAN_LIMIT_S = 30.0
WORKERS = 2


class Command:
    """`wsi-nuc run` as a user calls it. Every process that it started has to be gone soon after it has ended."""

    def __init__(self, slides: Sequence[Path], out: Path, address: str | None) -> None:
        scheduler = ["--scheduler", address] if address else ["--workers", f"{WORKERS}"]
        settings = ["--model", "classical", "--region-size", "256", "--tissue", "none", "--json", *scheduler]
        command = [sys.executable, "-m", "wsi_nuc", "run", *map(str, slides), "--out", str(out), *settings]
        self._output = out.with_suffix(".log").open("w+")
        self.process = subprocess.Popen(
            command,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # A session of its own, as a batch system or a terminal gives it.
            start_new_session=True,
            # So that a process that hangs says where, when it is aborted.
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
        self._seen: set[psutil.Process] = set()

    def descendants(self) -> list[psutil.Process]:
        """Living descendants, the oldest first; without the helper of multiprocessing."""
        alive = []
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if _works(child):
                        alive.append(child)
        self._seen.update(alive)
        return alive

    def orphans(self) -> list[str]:
        """Kills and names the processes that are left of a command that has ended."""
        # A process that was stopped can only end by itself once it goes on.
        for process in self._seen:
            with suppress(psutil.Error):
                process.resume()
        _, left = psutil.wait_procs(self._seen, timeout=ORPHAN_LIMIT_S)
        named = []
        for process in left:
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    named.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}")
                    process.kill()
        return named

    def output(self) -> str:
        self._output.seek(0)
        return self._output.read()

    def abort(self) -> None:
        """End a process that hangs, so that it says where."""
        self.descendants()
        self.process.send_signal(signal.SIGABRT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class GivenCluster:
    """A scheduler and workers with a nanny each, on loopback. `tend` restarts what was killed, as operators do."""

    def __init__(self) -> None:
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._nannies: list[subprocess.Popen[bytes]] = []
        self.address = ""

    def tend(self) -> str:
        """Starts everything that should run and does not. Returns the scheduler's address."""
        if self._scheduler is None or self._scheduler.poll() is not None:
            self._stop(self._nannies)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            self.address = f"tcp://127.0.0.1:{port}"
            self._scheduler = _dask("scheduler", "--host", "127.0.0.1", "--port", f"{port}", "--no-dashboard")
        self._nannies = [nanny for nanny in self._nannies if nanny.poll() is None]
        while len(self._nannies) < WORKERS:
            self._nannies.append(_dask("worker", self.address, "--nthreads", "1", "--no-dashboard"))
        return self.address

    def scheduler(self) -> list[psutil.Process]:
        return _alive([self._scheduler] if self._scheduler else [])

    def nannies(self) -> list[psutil.Process]:
        return _alive(self._nannies)

    def workers(self) -> list[psutil.Process]:
        workers: list[psutil.Process] = []
        for nanny in self.nannies():
            with suppress(psutil.Error):
                workers += filter(_works, nanny.children())
        return workers

    def close(self) -> None:
        self._stop([*self._nannies, *([self._scheduler] if self._scheduler else [])])

    def _stop(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        workers = self.workers()
        for process in processes:
            process.kill()
            process.wait()
        for worker in workers:
            with suppress(psutil.Error):
                worker.kill()


def _dask(what: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _works(process: psutil.Process) -> bool:
    """Whether the process is alive and is not the helper of multiprocessing. A zombie has no command."""
    command = " ".join(process.cmdline())
    return command != "" and "resource_tracker" not in command


def _alive(processes: Sequence[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    alive = []
    for process in processes:
        if process.poll() is None:
            with suppress(psutil.Error):
                alive.append(psutil.Process(process.pid))
    return alive


def wait_for_port(address: str, most_s: float = 60) -> None:
    """Waits until a scheduler listens at `address`."""
    host, port = address.removeprefix("tcp://").split(":")
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.1)
