"""What happens during a training, as plain records, and the clock that tells speed and time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepDone:
    """`loss`: of this step; `step` of `steps` of the stage; `seconds_left`: of the stage at the present speed."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_s: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class EpochDone:
    """`row`: the epoch's line of curves.csv; `best`: this epoch is the best so far by validation."""

    stage: str
    epoch: int
    epochs: int
    row: dict[str, float]
    best: bool


@dataclass(frozen=True, slots=True)
class Noted:
    message: str


Event = StepDone | EpochDone | Noted
Emit = Callable[[Event], None]


def ignore(_: Event) -> None:
    """The subscriber of those who do not listen."""


@dataclass
class Clock:
    """Speed over the steps of this call; validation counts, since one waits for it too."""

    batch: int
    first_step: int
    start: float = field(default_factory=time.monotonic)

    def tell(self, step: int, steps: int) -> tuple[float, float]:
        """Images a second so far, and seconds until the last step."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        a_step = seconds / max(1, step - self.first_step)
        return self.batch / a_step, a_step * (steps - step)
