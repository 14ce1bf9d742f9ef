"""The raw numbers of a model, looked at before a threshold hides what is wrong with them.

NaN is above no threshold, and infinity is cut to the range of a probability: either would pass for tissue without
a nucleus. All families check here, networks by way of `Place.infer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from wsi_nuc.errors import SlideError

Outputs = TypeVar("Outputs")


def finite(outputs: Outputs) -> Outputs:
    """The `outputs` (arrays, tensors, or records and tuples of them) as they are; SlideError if a number of them
    is not finite. Whoever knows the tile names it."""
    if not math.isfinite(float(total(outputs))):
        raise not_finite("model", "raw outputs")
    return outputs


def total(outputs: object) -> Any:
    """The sum of all floating-point numbers, on their device: finite only if each of them is.

    One sweep through memory, the cheapest question there is. It stays on the device until somebody reads it.
    """
    with np.errstate(all="ignore"):
        return sum((numbers.sum() for numbers in _floating(outputs)), start=0.0)


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
