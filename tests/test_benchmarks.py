"""The GPU benchmark where there is no GPU: it says so, and its code is sound on the CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu


def test_without_a_gpu_the_benchmark_says_so_and_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = gpu.measure()
    assert "no CUDA device" in row.what
    assert row.ok


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_gpu_benchmark_runs_on_the_cpu_with_the_instances_of_the_published_loop() -> None:
    rows = {row.what: row for row in gpu.measure(replace(gpu.SMOKE, side_px=272), gpu.TINY)}
    assert all(row.ok and math.isfinite(row.value) and row.value > 0 for row in rows.values())
    assert rows["tiny fp32: parity, instances of the published loop"].value >= 99
    assert rows["tiny: mean IoU of bf16 masks with fp32 ones"].value > 0.8
    for precision in ("bf16", "fp32"):
        assert {f"tiny {precision}: networks to masks", f"tiny {precision}: share of the matmul peak"} <= set(rows)


def test_goals_belong_to_a_gpu_alone() -> None:
    assert gpu.SMOKE.goals is False
    assert not gpu._row(gpu.GPU, "x", 0.39, 0.40).ok
    assert gpu._row(gpu.GPU, "x", 0.41, 0.40).goal == ">= 0.4"
    assert gpu._row(gpu.SMOKE, "x", 0.39, 0.40).goal == "-"
