"""Ten thousand finished slides: how long their status, their tables and their report take, and how much memory.

All slides are copies of the record, manifest and summary of one real slide, with other numbers in each.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.command import Cost, cost_of
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, PlanRow, save
from wsi_nuc.cohort.planning import make_plan
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.config import RunConfig

SLIDES, FEW_SLIDES = 10_000, 12
FAILED_EACH = 97
MOST_S = {"status": 2.0, "collect": 10.0, "report": 10.0}
# Some slides have failed, for which the call is not to blame.
OPTIONS = {"status": ("--allow-failed",), "collect": ("--allow-failed",), "report": ()}
MOST_MIB = 350


def measure(small: bool = False) -> list[Row]:
    slides = FEW_SLIDES if small else SLIDES
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as place:
        folder = _cohort(Path(place), slides)
        # Once for the cache of the file system.
        cost_of("cohort", "status", folder.root, *OPTIONS["status"])
        costs = {name: cost_of("cohort", name, folder.root, *OPTIONS[name]) for name in MOST_S}
        size = folder.table.stat().st_size / 2**20
    rows = [
        row for name, cost in costs.items() for row in _rows(f"{name} of {slides:,} slides", cost, MOST_S[name])
    ]
    return [*rows, Row("cohort.parquet", size, "MiB")]


def _rows(what: str, cost: Cost, most_s: float) -> list[Row]:
    return [
        Row(what, cost.wall_s, "s", f"<= {most_s:g}", cost.wall_s <= most_s),
        Row(f"{what}, CPU", cost.cpu_s, "s"),
        Row(f"{what}, peak memory", cost.peak_mib, "MiB", f"<= {MOST_MIB}", cost.peak_mib <= MOST_MIB),
    ]


def _cohort(place: Path, slides: int) -> CohortFolder:
    """A cohort whose slides all look like one that was really run."""
    folder = CohortFolder(place)
    plan = make_plan(folder, str(synthetic("cohort.svs", 1024)), RunConfig(out=folder.root, scheduler="serial"))
    save(folder, plan, overwrite=True)
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    (row,) = plan.rows
    rows = tuple(
        replace(row, id=f"slide-{i:05}", slide=f"/slides/{i:05}.svs", patient=f"P{i % 3100:04}", line=i + 2)
        for i in range(slides)
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
        figures = {name: _varied(value, random) for name, value in summary["figures"].items()}
        folder.store(row.id).mkdir(parents=True)
        folder.manifest(row.id).write_text(json.dumps({**manifest, "digest": digest}, indent=1))
        folder.record(row.id).write_text(json.dumps(own))
        folder.summary(row.id).write_text(json.dumps({**summary, "digest": digest, "figures": figures}))


def _varied(value: Any, random: Random) -> Any:
    if value is None or isinstance(value, str):
        return value
    return type(value)(value * random.lognormvariate(0, 0.3))


if __name__ == "__main__":
    print_rows(measure())
