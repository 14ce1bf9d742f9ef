"""The raw numbers of a model, checked before a threshold hides what is wrong with them.

NaN is above no threshold, and infinity is cut to the range of a probability: either would pass for tissue without
a nucleus. All families check here, networks by way of `Device.infer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from wsi_nuc.errors import SlideError

Outputs = TypeVar("Outputs")


@dataclass(frozen=True, slots=True)
class Unchecked(Generic[Outputs]):
    """What a network gives, perhaps still being computed on a device. Whoever brings it to the host checks it."""

    outputs: Outputs
    """Arrays, tensors, or records and tuples of them."""
    total: Any
    """The sum of all floating-point numbers in it, on their device: finite only if each of them is. A sum is the
    cheapest check, since it reads the memory once."""

    @classmethod
    def of(cls, outputs: Outputs) -> Unchecked[Outputs]:
        with np.errstate(all="ignore"):
            return cls(outputs, sum((numbers.sum() for numbers in _floating(outputs)), start=0.0))

    def checked(self) -> Outputs:
        refuse_non_finite([float(self.total)])
        return self.outputs


def finite(outputs: Outputs) -> Outputs:
    """The `outputs` as they are; SlideError if any number in them is not finite."""
    return Unchecked.of(outputs).checked()


def refuse_non_finite(totals: Iterable[float]) -> None:
    """The error names no tile; the caller who knows the tile adds it."""
    if not all(map(math.isfinite, totals)):
        raise not_finite("model", "raw outputs")


def not_finite(subject: str, what: str) -> SlideError:
    cause = f"the model's {what} are not finite numbers"
    return SlideError(subject, cause, "try --device cpu; if it stays, the weights are damaged")


def _floating(outputs: object) -> Iterator[Any]:
    """The arrays and tensors of floating-point numbers, however deep they lie."""
    if is_dataclass(outputs):
        for field in fields(outputs):
            yield from _floating(getattr(outputs, field.name))
    elif isinstance(outputs, (tuple, list)):
        for part in outputs:
            yield from _floating(part)
    elif "float" in str(getattr(outputs, "dtype", "")):
        yield outputs
