"""A running average of the weights, which is validated and kept in place of the last ones."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


class Ema(Generic[Net]):
    """`decay` 0: no average, `net` is the trained network itself."""

    def __init__(self, net: Net, decay: float) -> None:
        self._live, self._decay = net, decay
        self.net = deepcopy(net).requires_grad_(False) if decay else net

    @torch.no_grad()
    def update(self, step: int) -> None:
        if not self._decay:
            return
        # Early on the average would be of random weights mostly.
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, parameter in zip(self.net.parameters(), self._live.parameters(), strict=True):
            average.lerp_(parameter, 1 - decay)
        for kept, buffer in zip(self.net.buffers(), self._live.buffers(), strict=True):
            kept.copy_(buffer)
