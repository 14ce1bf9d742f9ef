"""Runs under Dask that are killed and stopped at random moments, from their first instruction on.

A run is a call of `wsi-nuc run` that is repeated until it exits with 0. Its seed says what happens to it: whether
its workers are its own or those of a cluster that runs already, which process gets which signal, and when.
Afterwards no slide may be lost, doubled or falsely reported as done, and the bytes must be those of an undisturbed
run. A run must not be without progress for longer than a minute, and no process may be left.

python -m benchmarks.soak MINUTES     goes on after the last seed in bench-results/soak.jsonl, and prints the sums
python -m benchmarks.soak one SEED    repeats one of these runs and prints what happens step by step
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.soak_run import KILL, QUIET_S, Report, one_run, set_scene
from benchmarks.table import Row, print_rows

RESULTS = Path("bench-results") / "soak.jsonl"
KILLS, STOPS = 1_000, 200


def reports_of(results: Path) -> list[Report]:
    """What the runs of earlier calls reported."""
    lines = results.read_text().splitlines() if results.exists() else []
    reports = [json.loads(line) for line in lines]
    return [
        Report(**{**report, "blows": Counter(report["blows"]), "ends": Counter(report["ends"])})
        for report in reports
    ]


def go_on(results: Path, minutes: float = 0.0, runs: int = 0) -> list[Report]:
    """Runs seeds that no earlier call has tried, at least `runs` and for `minutes`. Returns all reports."""
    results.parent.mkdir(parents=True, exist_ok=True)
    before = reports_of(results)
    first, deadline = max((report.seed for report in before), default=0) + 1, time.monotonic() + 60 * minutes
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as folder, results.open("a") as file:
        scene = set_scene(Path(folder))
        seed = first
        while time.monotonic() < deadline or seed < first + runs:
            print(json.dumps(vars(one_run(seed, scene, Path(folder)))), file=file, flush=True)
            seed += 1
    return reports_of(results)


def sums(reports: Sequence[Report]) -> list[Row]:
    blows = sum((report.blows for report in reports), Counter[str]())
    kills = sum(count for blow, count in blows.items() if blow.startswith(KILL.name))
    stops = blows.total() - kills
    wrong = [f"seed {report.seed}: {text}" for report in reports for text in report.wrong]
    for line in wrong:
        print(line, file=sys.stderr)
    hung = sum("hung for" in line for line in wrong)
    quiet = max((report.quiet_s for report in reports), default=0.0)
    slowest = max((report.stop_s for report in reports), default=0.0)
    return [
        Row(f"kills in {len(reports)} runs", kills, "", f">= {KILLS}", kills >= KILLS),
        *(Row(f"  {blow}", count) for blow, count in sorted(blows.items())),
        Row("stops", stops, "", f">= {STOPS}", stops >= STOPS),
        Row("slides lost, doubled or falsely done", len(wrong) - hung, "", "0", len(wrong) == hung, always=True),
        Row(f"hangs over {QUIET_S:.0f} s", hung, "", "0", hung == 0, always=True),
        Row("longest time without progress", quiet, "s", f"<= {QUIET_S:.0f}", quiet <= QUIET_S),
        Row("longest from SIGTERM or SIGUSR1 to the end", slowest, "s", "<= 10", slowest <= 10),
    ]


def measure(small: bool = False) -> list[Row]:
    """Runs for an hour. With `small` a single run, which leaves the results of earlier calls alone."""
    if not small:
        return sums(go_on(RESULTS, minutes=60))
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as folder:
        return sums(go_on(Path(folder) / RESULTS, runs=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        with TemporaryDirectory(prefix="wsi-nuc-bench-") as folder:
            print(one_run(int(sys.argv[2]), set_scene(Path(folder)), Path(folder), loud=True))
    else:
        print_rows(sums(go_on(RESULTS, minutes=float(sys.argv[1]))))
