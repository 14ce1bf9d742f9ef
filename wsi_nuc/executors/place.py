"""The place of one worker on this machine: a process that is watched from its start."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe

import psutil

from wsi_nuc.executors.apart import boot
from wsi_nuc.executors.worker import READY, Post

# One thread each, since there is a worker per CPU. A region's arrays come and go by tens of megabytes; if they
# were handed back to the system each time, page faults would take a third of the run's time. By default oneDNN
# keeps its code for the last 1024 shapes. A network has about 50, and each number of prompts adds several that
# hardly recur.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_ARENA_MAX": "1",
}


class Place:
    """One worker's process, and the next one if it dies."""

    def __init__(self, number: int, setup: bytes, environment: Mapping[str, str]) -> None:
        self.number, self._setup = number, setup
        self._environment = {**ENVIRONMENT, **os.environ, **environment}
        self.deaths = 0
        """How often in a row the process died before it was ready."""
        self.error: Exception | None = None
        """What its setup raised, if it could say so."""
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start a process. It gets everything ready and waits for its post."""
        self._ready, self._cpu_s, self._silent_s = False, 0.0, 0.0
        self._channel, theirs = Pipe()
        command = boot("wsi_nuc.executors.worker", theirs.fileno())
        with theirs:
            # In a group of its own, so that Ctrl-C only reaches the main process, which decides. And if that one
            # dies the kernel ends a worker that is stopped, which could not end by itself.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        with suppress(OSError):
            self._channel.send(sys.path)
            self._channel.send_bytes(self._setup)

    def send(self, post: Post) -> None:
        with suppress(OSError):
            self._channel.send_bytes(pickle.dumps(post))

    def is_dead(self) -> bool:
        """Whether the process has ended. If it was not ready yet its death is counted."""
        self._hear()
        if self._process.poll() is None:
            return False
        self.deaths += not self._ready
        return True

    def silent_s(self, passed_s: float) -> float:
        """How long it has used no processor time. `passed_s`: seconds since the last call."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        cpu_s = times.user + times.system
        self._silent_s = 0.0 if cpu_s > self._cpu_s else self._silent_s + passed_s
        self._cpu_s = cpu_s
        return self._silent_s

    def kill(self) -> None:
        self._process.kill()

    def dismiss(self) -> None:
        """The worker ends by itself when its channel closes."""
        self._channel.close()

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended; after `seconds` kill it."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hear(self) -> None:
        with suppress(OSError, EOFError):
            while self._channel.poll():
                said = self._channel.recv()
                if said == READY:
                    self._ready, self.deaths = True, 0
                else:
                    self.error = said
