"""What Dask costs over the plain loop, and what a second worker brings. Start-up and shut-down are left out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows
from wsi_nuc.config import RunConfig
from wsi_nuc.events import ignore
from wsi_nuc.executors.base import Executor
from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor
from wsi_nuc.executors.serial import SerialExecutor
from wsi_nuc.models.registry import model_spec
from wsi_nuc.run.job import SlideJob, prepare
from wsi_nuc.run.region import RegionJob, prepare_worker, process_region

ROUNDS = 3


def measure() -> list[Row]:
    slide = synthetic("workers.svs", 12288, tissue=0.9)
    job = prepare(str(slide), RunConfig(out=Path("unused"), region_size=2048), model_spec("classical"), ignore)
    setup = partial(prepare_worker, "classical", "cpu")
    seconds: dict[str, list[float]] = {"serial": [], "one": [], "two": []}
    makers: dict[str, Callable[[], Executor]] = {
        "serial": lambda: SerialExecutor(setup),
        "one": lambda: DaskExecutor(ClusterOptions(workers=1), setup),
        "two": lambda: DaskExecutor(ClusterOptions(workers=2), setup),
    }
    executors = {name: make() for name, make in makers.items()}
    for _ in range(ROUNDS):
        for name, executor in executors.items():
            seconds[name].append(_compute(executor, job))
    for executor in executors.values():
        executor.close()
    serial, one, two = (statistics.median(seconds[name]) for name in ("serial", "one", "two"))
    over = max(0.0, one - serial)
    us_a_tile = over / job.plan.planned_tiles * 1e6
    same = _same_bytes(slide)
    return [
        Row("Dask over the serial loop, a tile", us_a_tile, "us", "<= 20", us_a_tile <= 20),
        Row("Dask over the serial loop, of the wall", over / serial, "share", "<= 0.02", over / serial <= 0.02),
        Row("two workers / one", one / two, "x", ">= 1.7", one / two >= 1.7),
        Row("files that differ between one and two workers", same, "files", "0", same == 0),
    ]


def _compute(executor: Executor, job: SlideJob) -> float:
    """Seconds for all regions of a slide, without start-up: a first region for each worker does not count."""
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as parts:
        jobs = [RegionJob(job.ref, task, "classical", "cpu", parts) for task in job.plan.tasks()]
        list(executor.run(process_region, jobs[:2]))
        started = time.perf_counter()
        outcomes = list(executor.run(process_region, jobs))
        wall = time.perf_counter() - started
    broken = [outcome.error for outcome in outcomes if outcome.error]
    if broken:
        raise broken[0]
    return wall


def _same_bytes(slide: Path) -> int:
    one, two = (measured_run([slide], workers=n)["files"][0] for n in (1, 2))
    return len(set(map(str, one.items())) ^ set(map(str, two.items())))


if __name__ == "__main__":
    print_rows(measure())
