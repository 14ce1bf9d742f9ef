"""The device that networks run on, and which of their parts may run in half precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from wsi_nuc.errors import UsageError
from wsi_nuc.models.finite import Outputs, Unchecked


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """No automatic half precision for what is computed from `tensor`: scores and places need more than 8 bits."""
    # Tensors on the meta device have only a shape: they cannot be cast, and torch refuses autocast for them.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a network runs, and in which precision."""

    torch_device: torch.device
    bf16: bool
    """Compute in half precision (bfloat16) where that is accurate enough."""

    @classmethod
    def of(cls, device: str, precision: str) -> Device:
        """`device`: auto (a GPU where torch sees one), cpu, cuda or cuda:N.

        `precision`: fp32, bf16, or auto (bf16 where the device has it in hardware).
        """
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if wanted.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"--device {device}", "this torch sees no CUDA device", "use --device cpu")
        chosen = torch.device(wanted)
        half = precision == "bf16" or (precision == "auto" and _computes_bf16(chosen))
        # This holds for the whole process, whatever other models it has: a convolution of factors that are rounded
        # to ten bits is not single precision.
        torch.backends.cudnn.allow_tf32 = False
        return cls(chosen, half)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16, enabled=self.bf16)

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
