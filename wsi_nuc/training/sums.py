"""Means of the losses over some steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch


class Sums:
    """Means of the losses over an epoch, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0

    def add(self, losses: Mapping[str, torch.Tensor]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._steps += 1

    def means(self, over_processes: Callable[[torch.Tensor], torch.Tensor] = lambda own: own) -> dict[str, float]:
        """Mean of each loss over steps and processes; starts again afterwards."""
        own = torch.stack([value.float() for value in self._sums.values()]) / self._steps
        values = over_processes(own).tolist()
        named = {f"loss_{name}": value for name, value in zip(self._sums, values, strict=True)}
        self._sums, self._steps = {}, 0
        return {"loss": sum(values)} | named
