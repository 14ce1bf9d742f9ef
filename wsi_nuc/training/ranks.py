"""The processes of a training: which of them `torchrun` started, and what they exchange."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from wsi_nuc.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of a training."""

    rank: int
    """Its number, from 0."""
    world: int
    """Number of processes."""
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as one of all processes. On GPUs, its batch norms see the whole batch. Torch has no such norm
        for CPUs, where each process keeps to its own share."""
        if self.world == 1:
            return module
        if self.device.type == "cuda":
            module = synchronised(module)
        # For example, a batch without masks leaves the mask decoder without a gradient.
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def share(self, items: Sequence[Item]) -> list[Item]:
        return list(items[self.rank :: self.world])

    def collect(self, items: list[Item]) -> list[Item]:
        """The shares of all processes, in the order before `share`."""
        if self.world == 1:
            return items
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, items)
        return [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        if self.world > 1:
            dist.all_reduce(values)
        return values / self.world


def synchronised(module: nn.Module) -> nn.Module:
    """The same module, with the same parameters, whose batch norms are SyncBatchNorm."""
    made: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return made


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Meet the other processes that `torchrun` started; without it there is only this one."""
    world, rank, local = (int(os.environ.get(name, default)) for name, default in
                          (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0")))  # fmt: skip
    chosen = _device(device, local, world)
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world, chosen)
    finally:
        dist.destroy_process_group()


def _device(device: str, local: int, world: int) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}", "this torch sees no CUDA device", "use --device cpu")
    if device == "cuda" and world > 1:
        device = f"cuda:{local}"
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    return torch.device(device)
