"""Where and how the networks run: device, precision and the fixed shapes of their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from wsi_nuc.models.place import Place
from wsi_nuc.models.promptnucseg.settings import UseSettings

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Runner:
    """`tiles`, `windows`, `prompts`: of one call of prompter, image encoder and mask decoder. Every call has
    exactly that many, blanks included, so no result depends on what happens to share its call."""

    place: Place
    tiles: int
    windows: int
    prompts: int

    @classmethod
    def on(cls, device: str, use: UseSettings) -> Runner:
        # What must be as published is computed as published.
        place = Place.of(device, "fp32" if use.precision == "auto" and use.mode == "parity" else use.precision)
        # On a CPU larger calls are no faster, and blanks cost their full price.
        tiles, windows, prompts = (use.batch, use.windows**2, 256) if place.device.type == "cuda" else (1, 1, 32)
        return cls(place, tiles, windows, prompts)

    @property
    def device(self) -> torch.device:
        return self.place.device

    def autocast(self) -> torch.autocast:
        return self.place.autocast()


def chunks(items: Sequence[Item], size: int) -> Iterator[tuple[list[Item], int]]:
    """Lists of exactly `size` items, the last filled up with its first, and how many of them are real."""
    for first in range(0, len(items), size):
        part = list(items[first : first + size])
        yield part + [part[0]] * (size - len(part)), len(part)


def in_calls(items: Sequence[Item], size: int, call: Callable[[list[Item], int], Found]) -> Iterator[Found]:
    """`call(part, real)` for the chunks of `items`. Where memory runs out, half as many go at once from there on;
    a single item that does not fit is the caller's to tell."""
    first = 0
    while first < len(items):
        part = list(items[first : first + size])
        try:
            found = call(part + [part[0]] * (size - len(part)), len(part))
        except (MemoryError, torch.cuda.OutOfMemoryError):
            if size == 1:
                raise
            size = -(-size // 2)
            continue
        first += len(part)
        yield found
