"""Run every benchmark of this folder and print all numbers as one table: `make bench`.

One that fails is named at the end and does not stop the others.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from benchmarks.table import Row, print_rows

# These train or run large networks for many minutes: `python -m benchmarks.all NAME` runs one.
LONG = {"cohort_plan", "cohort_soak", "slurm_signals", "soak", "ablations", "resolution_check", "published_loop"}
OTHERS = {"__init__", "all", "child", "command", "slides", "slurm_ways", "soak_processes", "soak_run", "table"}


def main(wanted: list[str]) -> int:
    """Print the table; returns how many benchmarks failed."""
    rows: list[Row] = []
    failed: list[str] = []
    for script in sorted(Path(__file__).parent.glob("*.py")):
        if script.stem in OTHERS or (script.stem not in wanted if wanted else script.stem in LONG):
            continue
        print(f"measuring {script.stem} ...", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"benchmarks.{script.stem}").measure()
        except Exception:  # noqa: BLE001 - the others still run, and this one is named
            traceback.print_exc()
            failed.append(script.stem)
    print_rows(rows)
    for name in failed:
        print(f"FAILED: {name} (its error stands above)", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
