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
    """Its regions are handed to the workers now."""

    slide: str
    regions: int
    """All of them."""
    regions_resumed: int
    """Those whose parts an earlier run has left."""
    tiles: int
    """Tiles that are planned, in all regions."""


@dataclass(frozen=True, slots=True)
class RegionFinished:
    """One region's part file is durable."""

    slide: str
    region: int
    """Its index."""
    tiles: int
    nuclei: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each stage by its name."""
    rss_bytes: int = 0
    """Memory of the worker that computed it."""


@dataclass(frozen=True, slots=True)
class Warned:
    slide: str
    message: str


@dataclass(frozen=True, slots=True)
class SlideFinished:
    """The last that is said of a slide."""

    slide: str
    status: str
    """published, empty (without a nucleus), verified (the result was there already) or failed."""
    nuclei: int
    seconds: float
    error: str = ""
    exit_code: int = 0
    """0 unless it failed."""


@dataclass(frozen=True, slots=True)
class WorkersChanged:
    """Workers have come or gone."""

    present: int
    wanted: int | None
    """None where somebody else decides how many there are."""
    note: str = ""
    """What the user should know about it."""


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
