"""What happens during a training, as plain records, and the clock that gives speed and time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step of a stage is done."""

    stage: str
    epoch: int
    """The present epoch, from 1."""
    epochs: int
    """Epochs of the whole stage."""
    step: int
    """Steps of the stage that are done."""
    steps: int
    """Steps of the whole stage."""
    loss: float | None
    """The sum of the losses of this step; None where nothing is learned yet."""
    images_per_s: float
    seconds_left: float
    """Until the end of the stage, at the present speed."""


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch of a stage is done."""

    stage: str
    epoch: int
    epochs: int
    row: dict[str, float]
    """The epoch's row of curves.csv."""
    best: bool
    """The validation of this epoch is the best so far."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that the user should know."""

    message: str


Event = StepDone | EpochDone | Noted
Emit = Callable[[Event], None]


def ignore(_: Event) -> None:
    """For callers who do not listen to events."""


@dataclass
class Clock:
    """Speed over the steps of this call. The time of validation counts, since the user waits for it too."""

    batch: int
    """Images per step."""
    first_step: int
    """Steps that were done before this call."""
    start: float = field(default_factory=time.monotonic)

    def tell(self, step: int, steps: int) -> tuple[float, float]:
        """Images per second so far, and seconds until the last step."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        per_step = seconds / max(1, step - self.first_step)
        return self.batch / per_step, per_step * (steps - step)
