"""Progress on standard error: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath

import psutil

from wsi_nuc.events import Emit, Event, RegionFinished, SlideFinished, SlideStarted, Warned, WorkersChanged
from wsi_nuc.slides.address import shown

LINE_EVERY_S = 5.0
MEMORY_EVERY_S = 10.0


@dataclass
class _Totals:
    """What has been done since the start, over all slides."""

    regions: int = 0
    regions_known: int = 0
    """Of all slides that were started."""
    resumed: int = 0
    """Regions that an earlier run has finished."""
    tiles: int = 0
    nuclei: int = 0
    started: float = field(default_factory=time.monotonic)
    workers: WorkersChanged | None = None
    """The last event about workers."""
    lacking_since: str = ""
    """When workers began to be missing, as HH:MM:SS; "" if all are there."""

    def add(self, event: Event) -> None:
        if isinstance(event, SlideStarted):
            self.regions_known += event.regions
            self.resumed += event.regions_resumed
        elif isinstance(event, RegionFinished):
            self.regions += 1
            self.tiles += event.tiles
            self.nuclei += event.nuclei
        elif isinstance(event, WorkersChanged):
            self.workers = event
            lacking = event.wanted is not None and event.present < event.wanted
            self.lacking_since = (self.lacking_since or time.strftime("%H:%M:%S")) if lacking else ""

    def line(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-6)
        left = self.regions_known - self.resumed - self.regions
        eta = f"{_clock(left * seconds / self.regions)} left" if self.regions else "time left unknown"
        resumed = f" ({self.resumed} resumed)" if self.resumed else ""
        memory = _memory_gib(int(seconds / MEMORY_EVERY_S))
        return (
            f"regions {self.regions + self.resumed}/{self.regions_known}{resumed}  nuclei {self.nuclei:,}  "
            f"{self.tiles / seconds:.1f} tiles/s  {eta}  {memory:.1f} GiB{self._waiting()}"
        )

    def _waiting(self) -> str:
        """Which workers are missing, and since when: jobs may wait in a queue for hours."""
        if self.workers is None or not self.lacking_since:
            return ""
        return f"  {self.workers.present} of {self.workers.wanted} workers, waiting since {self.lacking_since}"


@contextmanager
def progress(quiet: bool) -> Iterator[Emit]:
    """Yields the subscriber to events. Messages about slides, and warnings, are printed as they come."""
    if quiet or not sys.stderr.isatty():
        with _lines(quiet) as emit:
            yield emit
    else:
        with _bar() as emit:
            yield emit


@contextmanager
def _lines(quiet: bool) -> Iterator[Emit]:
    totals = _Totals()

    def emit(event: Event) -> None:
        totals.add(event)
        message = _message(event, quiet)
        if message:
            print(message, file=sys.stderr, flush=True)  # noqa: T201 - this is the printing layer

    def tick() -> None:
        print(totals.line(), file=sys.stderr, flush=True)  # noqa: T201

    with _every(LINE_EVERY_S, (lambda: None) if quiet else tick):
        yield emit


@contextmanager
def _bar() -> Iterator[Emit]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    console, totals = Console(stderr=True), _Totals()
    with Progress(SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("opening", total=None)

        def tick() -> None:
            done = totals.regions + totals.resumed
            bar.update(task, description=totals.line(), total=totals.regions_known, completed=done)

        def emit(event: Event) -> None:
            totals.add(event)
            message = _message(event, quiet=False)
            if message:
                bar.console.print(message, markup=False, highlight=False)
            tick()

        with _every(1.0, tick):
            yield emit


@contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Repeat the call in a thread: time left and memory change even if no event comes."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(seconds):
            call()

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def journalled(emit: Emit, journal: Path | None) -> Emit:
    """Also add a line to the file for each finished region, so that scripts can see whether a job gets on."""
    if journal is None:
        return emit

    def both(event: Event) -> None:
        if isinstance(event, RegionFinished):
            with journal.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"region {event.region} of {PurePath(shown(event.slide)).name!r}\n")
        emit(event)

    return both


def _message(event: Event, quiet: bool) -> str:
    if isinstance(event, Warned):
        return f"{shown(event.slide)}: warning: {event.message}"
    if isinstance(event, SlideFinished) and event.error:
        return f"{event.status}: {event.error}"
    if isinstance(event, WorkersChanged):
        return event.note
    if quiet:
        return ""
    name = PurePath(shown(event.slide)).name
    if isinstance(event, SlideStarted):
        return f"{name}: {event.regions} regions, {event.tiles} tiles with tissue"
    if isinstance(event, SlideFinished):
        return f"{name}: {event.status}, {event.nuclei:,} nuclei, {event.seconds:.1f} s"
    return ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@lru_cache(maxsize=1)
def _memory_gib(moment: int) -> float:
    """Memory of this process and its workers. Pages that they share count once, which takes long to add up, so it
    is done once for each `moment`."""
    total, me = 0, psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return float(total) / 2**30
