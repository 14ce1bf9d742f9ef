"""The device that networks run on, and whether in half precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wsi_nuc.errors import UsageError
from wsi_nuc.models.finite import Outputs, Unchecked


@dataclass(frozen=True, slots=True)
class Place:
    device: torch.device
    bf16: bool

    @classmethod
    def of(cls, device: str, precision: str) -> Place:
        """`device`: auto (a GPU where torch sees one), cpu, cuda or cuda:N. `precision`: fp32, bf16, or auto: bf16
        where the device computes it."""
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if wanted.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"--device {device}", "this torch sees no CUDA device", "use --device cpu")
        place = torch.device(wanted)
        half = precision == "bf16" or (precision == "auto" and _computes_bf16(place))
        # For the whole process, whatever other models it holds: single precision is no convolution of factors
        # rounded to ten bits.
        torch.backends.cudnn.allow_tf32 = False
        return cls(place, half)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def infer(self, network: Callable[..., Outputs], *inputs: Any) -> Outputs:
        """What a network gives, in this precision. Every network call of every family goes this way or that of
        `start`: raw outputs are checked before anything is made of them."""
        return self.start(network, *inputs).checked()

    def start(self, network: Callable[..., Outputs], *inputs: Any) -> Unchecked[Outputs]:
        """The same without waiting for a device."""
        with self.autocast():
            return Unchecked.of(network(*inputs))


def _computes_bf16(device: torch.device) -> bool:
    """In hardware: older GPUs and most CPUs only imitate it, slower than single precision."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpu: Any = torch.cpu  # untyped in torch
    return bool(cpu._is_avx512_bf16_supported())
