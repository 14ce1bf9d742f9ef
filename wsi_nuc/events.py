"""What happens during a run, as plain records. The core emits; progress bars, logs and timings subscribe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SlideOpened:
    """The slide's turn has come: it is read through, and its tissue is searched for."""

    slide: str


@dataclass(frozen=True, slots=True)
class SlideStarted:
    slide: str
    regions: int
    regions_resumed: int
    tiles: int


@dataclass(frozen=True, slots=True)
class RegionFinished:
    """One region's part file is durable. `seconds` holds the time of each stage by name."""

    slide: str
    region: int
    tiles: int
    nuclei: int
    seconds: dict[str, float] = field(default_factory=dict)
    rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Warned:
    slide: str
    message: str


@dataclass(frozen=True, slots=True)
class SlideFinished:
    """`status` is published, empty, verified (it was there already) or failed, then with its `exit_code`."""

    slide: str
    status: str
    nuclei: int
    seconds: float
    error: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class WorkersChanged:
    """`wanted`: None where nobody here decides how many; `note`: what the user should know of it."""

    present: int
    wanted: int | None
    note: str = ""


Event = WorkersChanged | SlideOpened | SlideStarted | RegionFinished | Warned | SlideFinished
Emit = Callable[[Event], None]


def to_all(*subscribers: Emit) -> Emit:
    """Each event goes to all of them, in this order."""

    def emit(event: Event) -> None:
        for subscriber in subscribers:
            subscriber(event)

    return emit


def ignore(_: Event) -> None:
    """The subscriber of those who do not listen."""
