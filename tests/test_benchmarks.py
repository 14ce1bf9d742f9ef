"""Benchmarks run, also where there is no GPU, and one that fails does not take the others along."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmarks import all as run_all
from benchmarks import encoder, gpu, model_cost, startup
from benchmarks.table import Row


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


def test_a_benchmark_that_fails_is_named_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> list[Row]:
        raise RuntimeError("out of order")

    monkeypatch.setattr(encoder, "measure", broken)
    monkeypatch.setattr(startup, "measure", lambda: [Row("start", 1.0, "s", "-", True)])
    assert run_all.main(["encoder", "startup"]) == 1
    printed = capsys.readouterr()
    assert "start" in printed.out
    assert "FAILED: encoder" in printed.err
    assert "out of order" in printed.err


def test_the_cost_of_a_model_is_counted_without_its_weights() -> None:
    net = model_cost.network("vit_b")
    assert model_cost.gmacs(model_cost.published_pass, net) == pytest.approx(59.45, abs=0.5)
