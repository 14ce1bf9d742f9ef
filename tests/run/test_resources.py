"""What a process may use, on control groups of both versions, drawn in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from wsi_nuc.errors import UsageError
from wsi_nuc.run import resources


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resources, "MOUNTS", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    return tmp_path


def put(groups: Path, membership: str, files: dict[str, str]) -> None:
    (groups / "self").write_text(membership)
    for name, text in files.items():
        path = groups / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_without_control_groups_the_affinity_counts(groups: Path) -> None:
    assert resources.usable_cpus() == 16
    assert resources.usable_memory() == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({"job/step/cpu.max": "400000 100000", "job/step/memory.max": "1000000"}, 4, 1_000_000),
        ({"job/cpu.max": "250000 100000", "job/step/cpu.max": "max 100000", "job/memory.max": "5000"}, 2, 5000),
        ({"cpu.max": "50000 100000", "memory.max": "max"}, 1, None),
        ({"job/step/cpu.max": "9900000 100000", "job/step/memory.max": "max"}, 16, None),
        ({"job/step/cpu.max": "rubbish"}, 16, None),
    ],
    ids=["own", "above", "at the mount", "wider than the affinity", "unreadable"],
)
def test_version_2(groups: Path, files: dict[str, str], cpus: int, memory: int | None) -> None:
    put(groups, "0::/job/step\n", files)
    assert resources.usable_cpus() == cpus
    assert resources.usable_memory() == (memory or psutil.virtual_memory().total)


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        (
            {
                "cpu,cpuacct/slurm/job_1/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/slurm/job_1/cpu.cfs_period_us": "100000",
                "memory/slurm/job_1/memory.limit_in_bytes": "7000",
            },
            3,
            7000,
        ),
        (
            {
                "cpu,cpuacct/slurm/job_1/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/slurm/job_1/cpu.cfs_period_us": "100000",
                "memory/slurm/job_1/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/slurm/memory.limit_in_bytes": "9000",
            },
            16,
            9000,
        ),
    ],
    ids=["limited", "limited above only"],
)
def test_version_1(groups: Path, files: dict[str, str], cpus: int, memory: int) -> None:
    put(groups, "5:cpu,cpuacct:/slurm/job_1\n4:memory:/slurm/job_1\n0::/\n", files)
    assert resources.usable_cpus() == cpus
    assert resources.usable_memory() == memory


def test_the_affinity_of_this_process_is_respected() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert resources.usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("asked", "torch", "gpu", "device"),
    [
        ("auto", True, True, "cuda"),
        ("auto", True, False, "cpu"),
        ("auto", False, True, "cpu"),
        ("cpu", True, True, "cpu"),
        ("all", True, True, "cuda"),
    ],
)
def test_jobs_have_the_device_that_they_ask_for(asked: str, torch: bool, gpu: bool, device: str) -> None:
    assert resources.device_of_jobs(asked, torch, gpu) == device


def test_jobs_without_a_gpu_are_refused_one() -> None:
    with pytest.raises(UsageError, match=r"dask\.slurm\.gpu"):
        resources.device_of_jobs("cuda", True, False)
