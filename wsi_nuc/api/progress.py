"""The progress of `wsi_nuc.segment`: a bar in a notebook or on a terminal. Warnings become Python's own."""

from __future__ import annotations

import html
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wsi_nuc.events import Emit, Event, RegionFinished, SlideStarted, Warned

Show = Callable[[int, int, int], None]
"""Regions that are done, all of them (0: not known yet), and nuclei so far."""


@contextmanager
def progress(wanted: bool) -> Iterator[Emit]:
    """Yields the subscriber to events."""
    messages: list[str] = []
    with _bar(wanted) as show:
        done = total = nuclei = 0

        def emit(event: Event) -> None:
            nonlocal done, total, nuclei
            if isinstance(event, SlideStarted):
                done, total = event.regions_resumed, event.regions
            elif isinstance(event, RegionFinished):
                done, nuclei = done + 1, nuclei + event.nuclei
            elif isinstance(event, Warned):
                messages.append(event.message)
            show(done, total, nuclei)

        yield emit
    # Not where they come up: a thread that publishes must not fail because the user made errors of warnings.
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=4)


@contextmanager
def _bar(wanted: bool) -> Iterator[Show]:
    shell = _shell()
    if wanted and shell is not None and hasattr(shell, "kernel"):
        yield _of_notebook()
    elif wanted and sys.stderr.isatty():
        with _on_terminal() as show:
            yield show
    else:
        yield lambda done, total, nuclei: None


def _shell() -> Any:
    """IPython's, if the program runs in one. IPython is not imported for that."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def _of_notebook() -> Show:
    from IPython.display import HTML, display

    handle = display(HTML(_html(0, 0, 0)), display_id=True)

    def show(done: int, total: int, nuclei: int) -> None:
        handle.update(HTML(_html(done, total, nuclei)))

    return show


def _html(done: int, total: int, nuclei: int) -> str:
    text = f"{done} of {total} regions, {nuclei:,} nuclei" if total else "looking for tissue"
    state = f'value="{done}" max="{total}"' if total else ""
    return f"<progress {state}></progress> {html.escape(text)}"


@contextmanager
def _on_terminal() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("nuclei", total=None)
        yield lambda done, total, nuclei: bar.update(
            task, completed=done, total=total or None, description=f"{nuclei:,} nuclei"
        )
