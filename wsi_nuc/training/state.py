"""All that a stopped training needs to go on exactly: weights, their average, optimiser, random numbers."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from wsi_nuc.config import Section
from wsi_nuc.errors import StorageError, UsageError

Net = TypeVar("Net", bound=nn.Module)
# Settings that may differ between a training and its continuation, since no number depends on them.
FREE = ("out", "device", "threads")


class Ema(Generic[Net]):
    """A running average of the weights, which is validated and saved instead of the last weights.

    With a `decay` of 0 there is no average, and `net` is the trained network itself.
    """

    def __init__(self, net: Net, decay: float, copied: int = 0) -> None:
        """`copied`: steps at the start after which the average still is a copy; 0: it averages over fewer of them
        at first, since a slow average would be mostly of random weights."""
        self._live, self._decay, self._copied = net, decay, copied
        self.net = deepcopy(net).requires_grad_(False) if decay else net

    @torch.no_grad()
    def update(self, step: int) -> None:
        if not self._decay:
            return
        most = float(step >= self._copied) if self._copied else (1 + step) / (10 + step)
        decay = min(self._decay, most)
        # In one call for all weights: on a GPU, one per tensor costs more than the sums themselves.
        torch._foreach_lerp_(list(self.net.parameters()), list(self._live.parameters()), 1 - decay)
        for kept, buffer in zip(self.net.buffers(), self._live.buffers(), strict=True):
            kept.copy_(buffer)


@dataclass
class Progress:
    """How far a stage has come."""

    step: int = 0
    """The step of the next batch."""
    best: float = float("-inf")
    """The best validation so far."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The rows of the curves, one per epoch."""


@dataclass
class Trained:
    """What changes while a stage runs."""

    module: nn.Module
    ema: Ema[Any]
    optimizer: torch.optim.Optimizer
    progress: Progress


def save_state(path: Path, trained: Trained, config: Section, free: Collection[str] = ()) -> None:
    """Replace the file in one step: a kill leaves the old state or the new one. `free`: settings that may change
    before the training goes on, besides those of `FREE`."""
    content = {
        "config": json.dumps(_fixed(config, free)),
        "module": trained.module.state_dict(),
        "ema": trained.ema.net.state_dict(),
        "optimizer": trained.optimizer.state_dict(),
        "progress": vars(trained.progress),
        "random": torch.get_rng_state(),
        "random_device": _device_random(trained.module),
    }
    half = path.with_suffix(".tmp")
    try:
        with half.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError as error:
        raise StorageError(path, f"cannot be written: {error.strerror}", "free space and start again") from error


def load_state(
    path: Path, trained: Trained, config: Section, device: torch.device, free: Collection[str] = ()
) -> bool:
    """Go on from the file, if there is one. A state of other settings is refused."""
    if not path.exists():
        return False
    content = _read(path, device)
    _same_settings(path, json.loads(content["config"]), _fixed(config, free))
    trained.module.load_state_dict(content["module"])
    trained.ema.net.load_state_dict(content["ema"])
    trained.optimizer.load_state_dict(content["optimizer"])
    for name, value in content["progress"].items():
        setattr(trained.progress, name, value)
    torch.set_rng_state(content["random"].cpu())
    if device.type == "cuda" and content["random_device"] is not None:
        # All processes draw the same numbers, so each goes on with those of the first one, on its own device.
        torch.cuda.set_rng_state(content["random_device"].cpu(), device)
    return True


def _device_random(module: nn.Module) -> torch.Tensor | None:
    device = next(module.parameters()).device
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        remedy = f"remove {path} to start this stage again"
        raise UsageError(path, f"the saved state cannot be read ({type(error).__name__})", remedy) from error
    return content


def _fixed(config: Section, free: Collection[str]) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={*FREE, *free})


def _same_settings(path: Path, saved: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(fixed))
    changed = [key for key in sorted({*saved, *now}) if saved.get(key) != now.get(key)]
    if changed:
        raise UsageError(
            path.parent.parent,
            f"holds a training with other settings of {', '.join(changed)}",
            "give another --out, or --overwrite to start again",
        )
