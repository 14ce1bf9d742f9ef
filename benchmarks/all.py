"""Run every benchmark of this folder and print all numbers as one table: `make bench`.

python -m benchmarks.all [--small] [NAME ...]     without names, all but the LONG ones

Each has a process of its own, so that one that fails, or dies, does not stop the others. It is named at the end.
With `--small` each only shows that it runs.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.table import Row, print_rows

# These train, or run large networks or whole cohorts, for many minutes: they run when they are named.
LONG = {"cohort_plan", "cohort_soak", "slurm_signals", "soak", "ablations", "resolution_check", "published_loop"}
# Parts of benchmarks. Every other module of this folder is a benchmark.
PARTS = {
    "__init__",
    "all",
    "browser",
    "child",
    "command",
    "hostile_requests",
    "lattice",
    "slides",
    "slurm_ways",
    "soak_processes",
    "soak_run",
    "table",
}


def names() -> list[str]:
    """All benchmarks, including the long ones."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in PARTS)


def run(name: str, small: bool = False) -> list[Row]:
    rows: list[Row] = importlib.import_module(f"benchmarks.{name}").measure(small=small)
    return rows


def main(wanted: Sequence[str], small: bool = False) -> int:
    """Print the table; returns how many benchmarks failed."""
    rows: list[Row] = []
    failed: list[str] = []
    for name in wanted or [name for name in names() if name not in LONG]:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                rows += process.submit(run, name, small).result()
        except (Exception, SystemExit):  # noqa: BLE001 - the others still run, and this one is named
            traceback.print_exc()
            failed.append(name)
    print_rows(rows)
    for name in failed:
        print(f"FAILED: {name} (its error stands above)", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    options = [word for word in sys.argv[1:] if word != "--small"]
    sys.exit(min(1, main(options, small="--small" in sys.argv)))
