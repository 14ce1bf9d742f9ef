"""Many items through a network in calls of one fixed size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")


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
