"""Peak memory of the main process, on a sparse slide and on one of four times its area, and of all processes."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows

TISSUE = 0.004
EDGES, SMALL_EDGES = (100_000, 200_000), (2_048, 4_096)
LOOK_EVERY_S = 0.2


def measure(small: bool = False) -> list[Row]:
    edges, peaks = SMALL_EDGES if small else EDGES, []
    for edge in edges:
        slide = synthetic(f"sparse-{edge}.svs", edge, tissue=TISSUE)
        peaks.append(measured_run([slide])["peak_mib"])
    dense = 1024 if small else 8000
    ratio = peaks[1] / peaks[0]
    together = shared_mib(synthetic(f"dense-{dense}.svs", dense), workers=2)
    return [
        Row(f"run, {edges[0]:,} x {edges[0]:,} px, main process", peaks[0], "MiB", "<= 1536", peaks[0] <= 1536),
        Row("the same at four times the area", ratio, "x", "<= 1.1", ratio <= 1.1),
        Row("run, default model, two workers, all processes", together, "MiB", "<= 1229", together <= 1229),
    ]


def shared_mib(slide: Path, workers: int) -> float:
    """Peak of the sum over the processes of a run, in which a page that several of them share counts once (PSS).

    A page that programs outside the run share, too, counts only in part, so end other programs with torch first.
    """
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as out:
        options = ["--out", out, "--workers", str(workers), "--device", "cpu", "--quiet"]
        running = psutil.Popen(
            [sys.executable, "-m", "wsi_nuc", "run", str(slide), *options], stdout=subprocess.PIPE
        )
        peak = 0
        while running.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, sum(_pss(process) for process in [running, *running.children(recursive=True)]))
            time.sleep(LOOK_EVERY_S)
        if running.returncode:
            raise RuntimeError(f"wsi-nuc run ended with {running.returncode}")
    return peak / 2**20


def _pss(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


if __name__ == "__main__":
    print_rows(measure())
