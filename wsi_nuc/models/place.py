"""Where networks run: the device, the precision, and the check of the raw numbers that a network gives.

Raw numbers are checked before a threshold can hide what is wrong with them: NaN is above no threshold, and
infinity is cut to the range of a probability, so either would pass for tissue without nuclei. All families check
here, those with networks through `Place.infer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from wsi_nuc.errors import SlideError, UsageError


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """No automatic half precision for what is computed from `tensor`: scores and places need more than 8 bits."""
    # Tensors on the meta device have only a shape: they cannot be cast, and torch refuses autocast for them.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a network runs, and in which precision."""

    device: torch.device
    bf16: bool
    """Compute in half precision (bfloat16) where that is accurate enough."""

    @classmethod
    def of(cls, device: str, precision: str) -> Place:
        """`device`: auto (a GPU where torch sees one), cpu, cuda or cuda:N.

        `precision`: fp32, bf16, or auto (bf16 where the device has it in hardware).
        """
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if wanted.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"--device {device}", "this torch sees no CUDA device", "use --device cpu")
        place = torch.device(wanted)
        half = precision == "bf16" or (precision == "auto" and _computes_bf16(place))
        # This holds for the whole process, whatever other models it has: a convolution of factors that are rounded
        # to ten bits is not single precision.
        torch.backends.cudnn.allow_tf32 = False
        return cls(place, half)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def infer(self, network: Callable[..., Outputs], *inputs: Any) -> Outputs:
        """What a network gives, in this precision. Every network call of every family goes through this or
        `start`, so raw outputs are checked before anything is made of them."""
        return self.start(network, *inputs).checked()

    def start(self, network: Callable[..., Outputs], *inputs: Any) -> Unchecked[Outputs]:
        """The same without waiting for a device."""
        with self.autocast():
            return Unchecked.of(network(*inputs))


def _computes_bf16(device: torch.device) -> bool:
    """Whether it does so in hardware: older GPUs and most CPUs only emulate it, slower than single precision."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpu: Any = torch.cpu  # untyped in torch
    return bool(cpu._is_avx512_bf16_supported())
