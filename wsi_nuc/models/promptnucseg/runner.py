"""Where and how the networks run: device, precision and the fixed shapes of their calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wsi_nuc.models.device import Device
from wsi_nuc.models.finite import Outputs
from wsi_nuc.models.promptnucseg.settings import UseSettings


@dataclass(frozen=True, slots=True)
class Runner:
    """How the networks are called. Every call has exactly the stated size, blanks included, so no result depends
    on what happens to share its call."""

    device: Device
    tiles: int
    """Tiles per call of the prompter."""
    windows: int
    """Windows per call of the image encoder."""
    prompts: int
    """Prompts per call of the mask decoder."""

    @classmethod
    def on(cls, device: str, use: UseSettings) -> Runner:
        # Results that must be as published are computed in single precision, as published.
        precision = "fp32" if use.precision == "auto" and use.mode == "parity" else use.precision
        on = Device.of(device, precision)
        # On a CPU larger calls are no faster, and blanks cost their full price.
        tiles, windows, prompts = (
            (use.batch, use.windows**2, 256) if on.torch_device.type == "cuda" else (1, 1, 32)
        )
        return cls(on, tiles, windows, prompts)

    def infer(self, network: Callable[..., Outputs], *inputs: Any) -> Outputs:
        return self.device.infer(network, *inputs)
