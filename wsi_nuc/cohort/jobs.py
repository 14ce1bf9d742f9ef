"""Which jobs are at work. Each keeps one small file that says which slides it works on, and how far it is.

A job holds the lock beside its file as long as it lives. On some cluster file systems a lock is only seen on its
own machine; there a job on another machine counts as alive as long as its file is renewed.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Self

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.records import read_json
from wsi_nuc.errors import StorageError
from wsi_nuc.events import Event, RegionFinished, SlideFinished, SlideOpened, SlideStarted, WorkersChanged
from wsi_nuc.store.durable import remove_file
from wsi_nuc.store.locks import Held, is_held, try_lock
from wsi_nuc.store.place import Place

# A file is written at most once per WRITE_S and at least once per RENEW_S. One that is older than STALE_S belongs
# to a dead job, unless its lock says otherwise.
WRITE_S, RENEW_S, STALE_S = 1.0, 30.0, 180.0
_OURS = re.compile(r"([0-9a-f]{32})\.(json|lock|tmp)")


@dataclass(frozen=True, slots=True)
class InHand:
    """A slide that a job works on."""

    id: str
    host: str
    pid: int
    job: str
    """The job's name in the batch system; "" if it has none."""
    since: float
    """When the job opened the slide, in seconds since 1970."""
    regions: int = 0
    """0 while the slide is being opened."""
    regions_done: int = 0

    def __str__(self) -> str:
        job = f"job {self.job}, " if self.job else ""
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.far} on {self.host}, {job}process {self.pid}, since {started}"

    @property
    def far(self) -> str:
        if not self.regions:
            return "opening"
        if self.regions_done == self.regions:
            return f"publishing {self.regions} regions"
        return f"region {self.regions_done + 1} of {self.regions}"


def job_id() -> str:
    """The name of this job in the batch system; "" if it does not run in one."""
    given = os.environ
    if "SLURM_ARRAY_JOB_ID" in given:
        return f"{given['SLURM_ARRAY_JOB_ID']}_{given.get('SLURM_ARRAY_TASK_ID', '')}"
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID"):
        if name in given:
            return given[name]
    index = given.get("LSB_JOBINDEX", "0")
    return given.get("LSB_JOBID", "") + (f"[{index}]" if index != "0" else "")


class JobFile:
    """Shows other jobs which slides this one works on. It hears the events of the run; a thread writes the file.

    The file is not part of the result, so a file that cannot be written stops nothing.
    """

    def __init__(self, folder: CohortFolder, ids: Mapping[str, str]) -> None:
        """`ids`: the id of each slide by its path."""
        self._ids = ids
        self._about = (socket.gethostname(), os.getpid(), job_id())
        self._file = folder.place(folder.jobs) / f"{uuid.uuid4().hex}.json"
        self._held = Held(try_lock(_lock(self._file))[0])
        self._guard = threading.Lock()
        self._slides: dict[str, InHand] = {}
        self._changed, self._over = False, threading.Event()
        self._writer = threading.Thread(target=self._write_on, name="job file", daemon=True)
        self._writer.start()

    def hear(self, event: Event) -> None:
        with self._guard:
            self._changed |= self._note(event)

    def _note(self, event: Event) -> bool:
        """True if something changed.

        A slide that was opened and then left to another job goes when the next one is opened.
        """
        if isinstance(event, SlideOpened):
            self._slides = {path: slide for path, slide in self._slides.items() if slide.regions}
            self._slides[event.slide] = InHand(self._ids[event.slide], *self._about, since=time.time())
            return True
        if isinstance(event, SlideFinished):
            return self._slides.pop(event.slide, None) is not None
        if isinstance(event, WorkersChanged):
            return False
        slide = self._slides.get(event.slide)
        if isinstance(event, SlideStarted) and slide is not None:
            slide = replace(slide, regions=event.regions, regions_done=event.regions_resumed)
        elif isinstance(event, RegionFinished) and slide is not None:
            slide = replace(slide, regions_done=slide.regions_done + 1)
        else:
            return False
        self._slides[event.slide] = slide
        return True

    def _write_on(self) -> None:
        written = float("-inf")
        while not self._over.wait(WRITE_S):
            if self._changed or time.monotonic() - written >= RENEW_S:
                self._write()
                written = time.monotonic()

    def _write(self) -> None:
        with self._guard:
            self._changed = False
            slides = [asdict(slide) for slide in self._slides.values()]
        temporary = _beside(self._file, ".tmp")
        with suppress(OSError, StorageError):
            with os.fdopen(temporary.open(os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
                file.write(json.dumps({"slides": slides}))
            temporary.rename(self._file)

    def close(self) -> None:
        self._over.set()
        self._writer.join()
        _remove(self._file)
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def in_hand(folder: CohortFolder) -> dict[str, InHand]:
    """Every slide that a living job works on, by its id."""
    working: dict[str, InHand] = {}
    for file in _files(folder):
        slides = list(_slides(file))
        if slides and _alive(file, slides[0]):
            # If two jobs have one slide, the one that computes it counts, not the one that waits for it.
            working |= {slide.id: slide for slide in slides if slide.regions or slide.id not in working}
    return working


def sweep(folder: CohortFolder) -> None:
    """Remove the files of dead jobs, where we are allowed to."""
    for file in _files(folder):
        if not is_held(_lock(file)) and not any(_alive(file, slide) for slide in _slides(file)):
            _remove(file)


def _files(folder: CohortFolder) -> list[Place]:
    """The files of all jobs, also of one that has only made its lock so far."""
    jobs = folder.place(folder.jobs)
    ours = {match[1] for match in map(_OURS.fullmatch, jobs.names()) if match}
    return [jobs / f"{name}.json" for name in sorted(ours)]


def _slides(file: Place) -> Iterator[InHand]:
    document = read_json(file.path) or {}
    with suppress(TypeError):
        yield from [InHand(**slide) for slide in document.get("slides", ())]


def _alive(file: Place, slide: InHand) -> bool:
    held = is_held(_lock(file))
    if held is not None and (held or slide.host == socket.gethostname()):
        return held
    with suppress(OSError):
        return time.time() - file.path.stat().st_mtime < STALE_S
    return False


def _beside(file: Place, suffix: str) -> Place:
    return file.parent / f"{file.name.removesuffix('.json')}{suffix}"


def _lock(file: Place) -> Place:
    return _beside(file, ".lock")


def _remove(file: Place) -> None:
    for place in (file, _beside(file, ".tmp"), _lock(file)):
        remove_file(place)
