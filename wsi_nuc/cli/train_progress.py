"""Progress of a training on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from wsi_nuc.training.events import Emit, EpochDone, Event, Noted, StepDone

LINE_EVERY_S = 30.0


@contextmanager
def training_progress(quiet: bool) -> Iterator[Emit]:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _line_printer(quiet)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading images", total=None)

        def emit(event: Event) -> None:
            if isinstance(event, StepDone):
                bar.update(task, description=step_line(event), total=event.steps, completed=event.step)
            else:
                bar.console.print(message(event), markup=False, highlight=False)

        yield emit


def _line_printer(quiet: bool) -> Emit:
    printed = [time.monotonic()]

    def emit(event: Event) -> None:
        if quiet and not isinstance(event, Noted):
            return
        if isinstance(event, StepDone):
            if time.monotonic() - printed[0] < LINE_EVERY_S:
                return
            printed[0] = time.monotonic()
            text = f"{step_line(event)}, step {event.step} of {event.steps}"
        else:
            text = message(event)
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the printing layer

    return emit


def step_line(event: StepDone) -> str:
    minutes, seconds = divmod(round(event.seconds_left), 60)
    left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return (
        f"{event.stage} epoch {event.epoch}/{event.epochs}, loss {event.loss:.4f}, "
        f"{event.images_per_s:.1f} images/s, {left} left"
    )


def message(event: EpochDone | Noted) -> str:
    if isinstance(event, Noted):
        return event.message
    scores = ", ".join(f"{n} {event.row[n]:.3f}" for n in ("pq", "aji", "f1") if event.row.get(n, -1.0) >= 0)
    mark = " (best so far)" if event.best else ""
    return (
        f"{event.stage} epoch {event.epoch}/{event.epochs}: loss {event.row['loss']:.4f} {scores}{mark}".rstrip()
    )
