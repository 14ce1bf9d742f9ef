"""Where and how the networks run: device, precision and the fixed shapes of their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch

from wsi_nuc.models.place import torch_device
from wsi_nuc.models.promptnucseg.settings import UseSettings

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Runner:
    """`tiles`, `windows`, `prompts`: of one call of prompter, image encoder and mask decoder. Every call has
    exactly that many, blanks included, so no result depends on what happens to share its call."""

    device: torch.device
    bf16: bool
    tiles: int
    windows: int
    prompts: int

    @classmethod
    def on(cls, device: str, use: UseSettings) -> Runner:
        place = torch_device(device)
        gpu = place.type == "cuda"
        bf16 = use.precision == "bf16" or (use.precision == "auto" and gpu)
        # On a CPU larger calls are no faster, and blanks cost their full price.
        tiles, windows, prompts = (use.batch, use.windows**2, 256) if gpu else (1, 1, 32)
        return cls(place, bf16, tiles, windows, prompts)

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


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
