"""How long a user waits for `--help`, and until the first region of a slide is being computed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows


def measure(small: bool = False) -> list[Row]:
    help_s = statistics.median(_help_seconds() for _ in range(1 if small else 5))
    slide = synthetic("startup.svs", 1024 if small else 4096)
    first_s = statistics.median(measured_run([slide])["first_region_s"] for _ in range(1 if small else 3))
    return [
        Row("wsi-nuc --help", help_s, "s", "<= 0.5", help_s <= 0.5),
        Row("first region starts after", first_s, "s", "<= 5", first_s <= 5),
    ]


def _help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "wsi_nuc", "--help"], capture_output=True, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    print_rows(measure())
