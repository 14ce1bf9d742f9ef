"""Ten thousand finished slides: how long their status takes, and how long and how large it is to collect them.

The slides are one real slide's record, manifest and summary ten thousand times over, with other numbers in each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.child import peak_mib
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, PlanRow, save
from wsi_nuc.cohort.planning import make_plan
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.config import RunConfig

SLIDES = 10_000
FAILED_EACH = 97


def measure() -> list[Row]:
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as place:
        folder = _cohort(Path(place))
        status_s, cpu_s = _timed([sys.executable, "-m", "wsi_nuc", "cohort", "status", str(folder.root)])
        collect_s, peak = json.loads(_said([sys.executable, "-m", "benchmarks.cohort", str(folder.root)]))
        size = folder.table.stat().st_size / 2**20
    return [
        Row(f"status of {SLIDES:,} slides", status_s, "s", "<= 3", status_s <= 3),
        Row("of that the CPU", cpu_s, "s", "none", True),
        Row(f"collect of {SLIDES:,} slides", collect_s, "s", "<= 60", collect_s <= 60),
        Row("collect, peak memory", peak, "MiB", "<= 2048", peak <= 2048),
        Row("cohort.parquet", size, "MiB", "none", True),
    ]


def _cohort(place: Path) -> CohortFolder:
    """A cohort whose slides all look like one that was really run."""
    folder = CohortFolder(place)
    plan = make_plan(folder, str(synthetic("cohort.svs", 1024)), RunConfig(out=folder.root, scheduler="serial"))
    save(folder, plan, overwrite=True)
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    (row,) = plan.rows
    rows = tuple(
        replace(row, id=f"slide-{i:05}", slide=f"/slides/{i:05}.svs", patient=f"P{i % 3100:04}", line=i + 2)
        for i in range(SLIDES)
    )
    many = replace(plan, rows=rows)
    _copies(folder, many, row)
    save(folder, many, overwrite=True)
    return folder


def _copies(folder: CohortFolder, plan: Plan, real: PlanRow) -> None:
    record, manifest, summary = (
        json.loads(path(real.id).read_bytes()) for path in (folder.record, folder.manifest, folder.summary)
    )
    random = Random(1)
    for i, row in enumerate(plan.rows):
        digest = f"{i:064x}"
        own = {**record, "id": row.id, "key": plan.key(row), "digest": digest}
        if i % FAILED_EACH == 0:
            own |= {"state": "failed", "error": f"{row.slide}: is truncated", "exit_code": 3}
        figures = {name: _other(value, random) for name, value in summary["figures"].items()}
        folder.store(row.id).mkdir(parents=True)
        folder.manifest(row.id).write_text(json.dumps({**manifest, "digest": digest}, indent=1))
        folder.record(row.id).write_text(json.dumps(own))
        folder.summary(row.id).write_text(json.dumps({"digest": digest, "figures": figures}))


def _other(value: Any, random: Random) -> Any:
    if isinstance(value, str):
        return value
    return type(value)(value * random.lognormvariate(0, 0.3))


def _timed(command: list[str]) -> tuple[float, float]:
    """Wall seconds, and those of the CPU, which busy neighbours lengthen less."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, capture_output=True, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def main(call: Callable[[], list[Row]]) -> None:
    """Alone, all of it; with the folder of a cohort, the collecting of it, as seconds and peak MiB."""
    if len(sys.argv) == 1:
        print_rows(call())
        return
    from wsi_nuc.cohort.collect import collect

    started = time.perf_counter()
    collect(CohortFolder(Path(sys.argv[1])))
    print(json.dumps([time.perf_counter() - started, peak_mib()]))


if __name__ == "__main__":
    main(measure)
