"""Where one worker of this machine runs: a process that is watched from its start, and replaced if it dies.

The process lives as long as its end of the channel is open.
"""

from __future__ import annotations

import os
import pickle
import signal
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait

import psutil

from wsi_nuc.executors.original import Original
from wsi_nuc.executors.worker import READY, Post


class WorkerSlot:
    """One worker's process, and the next one if it dies."""

    def __init__(self, number: int, original: Original) -> None:
        self.number, self._original = number, original
        self.deaths = 0
        """How often in a row the process died before it was ready."""
        self.error: Exception | None = None
        """What its setup raised, if it could say so."""
        self.start()

    @property
    def pid(self) -> int:
        """The process id of the worker or, until that exists, of the process from which it is made."""
        self._hear()
        return self._pid or self._original.pid

    def start(self) -> None:
        """Start a process. It gets everything ready and waits for its post."""
        self._ready, self._ended, self._pid, self._cpu_s, self._silent_s = False, False, 0, 0.0, 0.0
        self._channel, theirs = Pipe()
        with theirs:
            self._original.make_worker(theirs)

    def send(self, post: Post) -> None:
        with suppress(OSError):
            self._channel.send_bytes(pickle.dumps(post))

    def is_dead(self) -> bool:
        """Whether the process has ended. If it was not ready yet its death is counted."""
        self._hear()
        self.deaths += self._ended and not self._ready
        return self._ended

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
        self._hear()
        if not self._pid:
            self._original.kill()
        elif not self._ended:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """The worker ends by itself when it gets an empty message."""
        with suppress(OSError):
            self._channel.send_bytes(b"")

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended; after `seconds` kill it."""
        while not self._ended:
            if not wait([self._channel], seconds):
                self.kill()
            self._hear()

    def _hear(self) -> None:
        try:
            while not self._ended and self._channel.poll():
                said = self._channel.recv()
                if said == READY:
                    self._ready, self.deaths = True, 0
                elif isinstance(said, int):
                    self._pid, self._cpu_s = said, 0.0
                else:
                    self.error = said
        except (OSError, EOFError):
            self._ended = True
            self._channel.close()
