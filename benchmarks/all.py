"""Run every benchmark of this folder and print all numbers as one table: `make bench`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.table import Row, print_rows

# These train or run large networks for many minutes: `python -m benchmarks.all NAME` runs one.
LONG = {"cohort_soak", "ablations", "mpp_doctor", "published_loop"}
OTHERS = {"__init__", "all", "child", "slides", "table"}


def main() -> None:
    rows: list[Row] = []
    wanted = sys.argv[1:]
    for script in sorted(Path(__file__).parent.glob("*.py")):
        if script.stem in OTHERS or (script.stem not in wanted if wanted else script.stem in LONG):
            continue
        print(f"measuring {script.stem} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.{script.stem}").measure()
    print_rows(rows)


if __name__ == "__main__":
    main()
