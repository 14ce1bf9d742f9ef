"""What a run may use and how it is shared out: CPUs by affinity and control group, memory, the device that a model
runs on, and regions small enough for all workers and for little loss by a kill."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import UsageError
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.tiling.plan import TilePlan

GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
MOUNTS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# Of the main process: 28 were seen with two workers, 57 with eight.
OPEN_FILES, OPEN_FILES_PER_WORKER = 40, 5
# With this many, the last region of the last worker is a small part of the whole.
REGIONS_PER_WORKER = 4
# On a core like those that `ModelSpec.cpu_tile_s` was measured on. Four times slower ones still need less than the
# ten minutes that a task of a cluster must have.
LONGEST_S = 150.0
# The workers of somebody else's scheduler are not known yet when the first slide is planned.
WORKERS_ELSEWHERE = 16
TILES_PER_TRIM = 8


def usable_cpus() -> int:
    """CPUs of the affinity mask, limited by the quota of every control group around this process; at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_quotas()]))


def usable_memory() -> int:
    """Bytes: of the machine, limited by every control group around this process."""
    limits = [*_numbers("", "memory.max"), *_numbers("memory", "memory.limit_in_bytes")]
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit > 0)])


def allow_files(workers: int) -> None:
    """Let this process open the files that it needs with this many workers; UsageError if it may not."""
    needed = OPEN_FILES + OPEN_FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):
        cause = f"the run has to have about {needed} files open at once, and {hard} are allowed"
        raise UsageError(f"--workers {workers}", cause, "lower it, or raise `ulimit -n`") from None


def _quotas() -> Iterator[int]:
    """Whole CPUs that a quota of time amounts to, of both versions of control groups."""
    for folder in _folders(""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) // int(period)
    for folder in _folders("cpu"):
        texts = [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if all(text.isdigit() and int(text) > 0 for text in texts):
            yield int(texts[0]) // int(texts[1])


def _numbers(controller: str, name: str) -> Iterator[int]:
    for folder in _folders(controller):
        text = _text(folder / name)
        if text.isdigit():
            yield int(text)


def _folders(controller: str) -> Iterator[Path]:
    """Our control group and all above it; `controller` "" for version 2.

    In a container the mount shows our own group as its root, whatever the membership file calls it.
    """
    for line in _text(MEMBERSHIP).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller not in names.split(","):
            continue
        mount = MOUNTS / names if controller else MOUNTS
        inside = Path(path.lstrip("/"))
        yield from (mount / part for part in (inside, *inside.parents))


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _may_have_a_gpu() -> bool:
    """Without asking torch, whose import costs seconds and memory. Only Linux without a driver can say no."""
    return sys.platform != "linux" or any(path.exists() for path in GPU_DRIVERS)


def resolve_device(asked: str, uses_torch: bool) -> str:
    """cpu, cuda or cuda:N for "auto" and the like; UsageError where the device is not there."""
    if asked == "cpu" or (asked == "auto" and not uses_torch):
        return "cpu"
    if not uses_torch:
        raise UsageError(f"--device {asked}", "this model runs on the CPU only", "leave the option out")
    if asked == "auto" and not _may_have_a_gpu():
        return "cpu"
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return "cuda" if there else "cpu"
    number = int(asked.partition(":")[2] or 0)
    if number >= there:
        raise UsageError(f"--device {asked}", f"{there} CUDA devices are here", "use --device cpu or auto")
    return "cuda" if asked == "all" else asked


def gpus() -> list[str]:
    """Each as CUDA_VISIBLE_DEVICES names it, of those that this process may use."""
    import torch

    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def device_of_jobs(asked: str, uses_torch: bool, gpu: bool) -> str:
    """As `resolve_device` where the workers are jobs elsewhere, each with or without a GPU of its own."""
    if asked == "cpu" or not (uses_torch and gpu):
        if asked in ("cpu", "auto"):
            return "cpu"
        raise UsageError(
            f"--device {asked}", "the jobs have no GPU, or the model has no use for one", "set dask.slurm.gpu=true"
        )
    return "cuda"


def sized(plan: TilePlan, config: RunConfig, spec: ModelSpec, device: str) -> TilePlan:
    """The plan with regions for these workers, no larger than those that it has; those asked for are kept."""
    if config.region_size is not None:
        return plan
    fair = math.isqrt(plan.planned_tiles // (REGIONS_PER_WORKER * workers_of(config)))
    quick = math.isqrt(int(LONGEST_S / spec.cpu_tile_s)) if device == "cpu" else plan.tiles_per_region
    return plan.with_regions(max(1, min(plan.tiles_per_region, fair, quick)))


def workers_of(config: RunConfig) -> int:
    """How many are going to compute, as far as the configuration tells."""
    if config.scheduler == "serial":
        return 1
    if config.scheduler == "slurm":
        jobs = config.dask.slurm
        return jobs.jobs * (1 if jobs.gpu else jobs.cores)
    if config.scheduler == "local":
        return config.workers or usable_cpus()
    return WORKERS_ELSEWHERE


class Heap:
    """Hands free memory back to the system. The allocator keeps it in pieces, so that the process would grow.

    That costs about a hundredth of the time of TILES_PER_TRIM tiles. After each single tile it would cost 5 %.
    """

    def __init__(self) -> None:
        self._tiles = 0

    def used(self, tiles: int) -> None:
        self._tiles += tiles
        if self._tiles >= TILES_PER_TRIM:
            self._tiles = 0
            with suppress(OSError, AttributeError):  # only glibc has it
                ctypes.CDLL(None).malloc_trim(0)
