"""Errors that a user can act on: each names what failed, why, and the remedy, and carries its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

OK, USAGE, SLIDES, MODEL, STORAGE, INTERRUPTED = 0, 2, 3, 4, 5, 75


def overall_code(codes: Iterable[int]) -> int:
    """The exit code of a call from those of its slides or stores.

    0 if all are 0. A failure of storage goes first, since more than one slide is at stake; then that work is left.
    Else it is the code that all failures share, or 3.
    """
    bad = set(codes) - {OK}
    for first in (STORAGE, INTERRUPTED):
        if first in bad:
            return first
    return SLIDES if len(bad) > 1 else bad.pop() if bad else OK


def choices(name: object, known: Iterable[str], they_are: str = "known:") -> str:
    """What to say of a name that a registry lacks: the nearest that it has, if one is near, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    question = f"did you mean {near[0]}? " if near else ""
    return f"{question}{they_are} {', '.join(known)}"


class WsiNucError(Exception):
    """`subject` is the file, tile or option at fault; "" where it is the slide at hand, which `about` names.
    `remedy` is what the user can do about it."""

    exit_code: int
    """Each kind states its own."""

    def __init__(self, subject: object, cause: str, remedy: str = "") -> None:
        super().__init__(subject, cause, remedy)
        self.subject, self.cause, self.remedy = str(subject), cause, remedy

    def __str__(self) -> str:
        tail = f" {self.remedy[0].upper()}{self.remedy[1:]}." if self.remedy else ""
        stop = "" if self.cause.endswith(("?", ".")) else "."
        return f"{self.subject}{': ' * bool(self.subject)}{self.cause}{stop}{tail}"


@contextmanager
def about(subject: str) -> Iterator[None]:
    """The boundary of a slide: errors that name nothing get its name here, once."""
    try:
        yield
    except WsiNucError as error:
        error.subject = error.subject or subject
        raise


class UsageError(WsiNucError):
    """The call is wrong: its options, its configuration, or what it was pointed at."""

    exit_code = USAGE


class SlideError(WsiNucError):
    """This slide cannot be processed; the other slides of the call still run."""

    exit_code = SLIDES


class DamagedPixels(SlideError):
    """A box of pixels could not be decoded; the rest of the slide may be readable."""


class ModelError(WsiNucError):
    """The model or its weights cannot be used, or cannot be trained further."""

    exit_code = MODEL


class StorageError(WsiNucError):
    """Output cannot be written, or what was written before cannot be read. Nothing incomplete is published."""

    exit_code = STORAGE


class Interrupted(KeyboardInterrupt):
    """The run was stopped from outside and can be resumed by the same command.

    Not a WsiNucError: like Ctrl-C it must pass through everything that handles the failure of a tile or a slide.
    """

    exit_code = INTERRUPTED

    def __init__(
        self, signal_name: str, kept: str = "Finished regions are kept: the same command goes on"
    ) -> None:
        super().__init__(f"stopped by {signal_name}. {kept} from there.")
        self.signal_name = signal_name
