"""Where and how the networks run: device, precision and the fixed shapes of their calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wsi_nuc.models.place import Outputs, Place
from wsi_nuc.models.promptnucseg.settings import UseSettings


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

    def infer(self, network: Callable[..., Outputs], *inputs: Any) -> Outputs:
        return self.place.infer(network, *inputs)
