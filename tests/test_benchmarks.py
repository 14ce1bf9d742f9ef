"""Every benchmark runs, also where there is no GPU, and one that fails does not stop the others."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from benchmarks import all as run_all
from benchmarks import gpu, model_cost
from benchmarks.table import Row, print_rows
from wsi_nuc.models.promptnucseg import cost
from wsi_nuc.models.promptnucseg.settings import SegmentorSettings, Settings

ROOT = Path(__file__).parents[1]
# Small runs of these need more than ten seconds: they train, run large networks, or start many processes.
SLOW = {
    "ablations", "cohort", "cohort_plan", "cohort_soak", "default_accuracy", "default_speed", "dots_to_store",
    "gpu", "published_loop", "slurm_signals", "soak", "workers",
}  # fmt: skip


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in run_all.names()]
)
def test_a_small_run_prints_rows_and_meets_what_holds_at_any_size(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        rows = run_all.run(name, small=True)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
    assert rows
    assert [row.what for row in rows if not math.isfinite(row.value)] == []
    assert [row for row in rows if row.always and not row.ok] == []
    print_rows(rows)
    assert "target" in capsys.readouterr().out


def test_only_benchmarks_that_are_there_are_long_or_slow() -> None:
    assert set(run_all.names()) >= run_all.LONG | SLOW


def test_the_table_marks_what_misses_its_target_and_what_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([Row("met", 1, "s", "<= 2"), Row("missed", 3, "s", "<= 2", False), Row("recorded", 4, "s")])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["measured", "unit", "target"]
    assert [line.split()[0] for line in lines] == ["ok", "MISS", "recorded"]


BENCHMARKS = {
    "broken": "def measure(small):\n    raise RuntimeError('out of order')\n",
    "dies": "import os, signal\n\ndef measure(small):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
    "without_small": "def measure():\n    return []\n",
    "works": "from benchmarks.table import Row\n\ndef measure(small):\n    return [Row('it works', 42)]\n",
}


def test_benchmarks_that_fail_are_named_and_the_others_run(tmp_path: Path) -> None:
    """The command of `make bench`, in a folder with other benchmarks."""
    (tmp_path / "benchmarks").mkdir()
    for part in ("__init__.py", "all.py", "table.py"):
        shutil.copyfile(ROOT / "benchmarks" / part, tmp_path / "benchmarks" / part)
    for name, text in BENCHMARKS.items():
        (tmp_path / "benchmarks" / f"{name}.py").write_text(text)

    def call(*names: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.all", *names]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    everything = call()
    assert everything.returncode == 1
    assert "it works" in everything.stdout
    assert "out of order" in everything.stderr
    failed = [line.split()[1] for line in everything.stderr.splitlines() if line.startswith("FAILED: ")]
    assert failed == ["broken", "dies", "without_small"]
    good = call("works")
    assert (good.returncode, "FAILED" in good.stderr) == (0, False)
    unknown = call("nonsense")
    assert (unknown.returncode, "FAILED: nonsense" in unknown.stderr) == (1, True)


def test_without_a_gpu_the_benchmark_says_so_and_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = gpu.measure()
    assert "no CUDA device" in row.what
    assert row.ok


def test_targets_of_speed_belong_to_a_gpu_alone() -> None:
    assert gpu.SMALL.targets is False
    assert not gpu._row(gpu.GPU, "x", 0.39, 0.40).ok
    assert gpu._row(gpu.GPU, "x", 0.41, 0.40).target == ">= 0.4"
    assert gpu._row(gpu.SMALL, "x", 0.39, 0.40).target == "-"


@pytest.mark.parametrize("size", ["B", *(pytest.param(size, marks=pytest.mark.slow) for size in "LH")])
def test_the_cost_of_a_model_is_counted_without_its_weights(size: str) -> None:
    """Parameters and GMACs as another program counted them: 145.9 / 59.45, 363.5 / 154.3, 691.2 / 295.9."""
    counted = {"B": (145.9, 59.45), "L": (363.5, 154.3), "H": (691.2, 295.9)}
    net = cost.network(Settings(("a",) * 5, 0.25, segmentor=SegmentorSettings(model_cost.SIZES[size][0])))
    assert all(parameter.is_meta for parameter in net.parameters())
    assert (cost.parameters_m(net), cost.published_gmacs(net)) == pytest.approx(counted[size], rel=1e-3)
