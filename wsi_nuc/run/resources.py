"""What this process may use: CPUs by affinity and control group, and the device that a model runs on."""

from __future__ import annotations

import os
from pathlib import Path

from wsi_nuc.errors import UsageError

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> int:
    """CPUs of the affinity mask, no more than the control group's quota; at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU.read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def resolve_device(asked: str, uses_torch: bool) -> str:
    """cpu, cuda or cuda:N for "auto" and the like; UsageError where the device is not there."""
    if asked == "cpu" or (asked == "auto" and not uses_torch):
        return "cpu"
    if not uses_torch:
        raise UsageError(f"--device {asked}", "this model runs on the CPU only", "leave the option out")
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return "cuda" if there else "cpu"
    number = int(asked.partition(":")[2] or 0)
    if number >= there:
        raise UsageError(f"--device {asked}", f"{there} CUDA devices are here", "use --device cpu or auto")
    return "cuda" if asked == "all" else asked
