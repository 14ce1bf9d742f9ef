"""What Dask costs over the plain loop, and how much a second worker helps. Start-up and shut-down are left out.

The cost per region is measured with real tasks whose work is a sleep, since other processes of a busy machine
hardly change that. It is given per tile of 256 px, of which a region of 4096 px has 256.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows
from wsi_nuc.config import RunConfig
from wsi_nuc.executors.base import Executor, SerialExecutor
from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor
from wsi_nuc.models.registry import model_spec
from wsi_nuc.run.job import prepare
from wsi_nuc.run.region import RegionJob, prepare_worker, process_region
from wsi_nuc.run.resources import usable_cpus
from wsi_nuc.store.place import open_folder

ROUNDS = 3
REGION_PX = 2048  # small, so that two workers share the slide evenly
EDGE, SMALL_EDGE = 12288, 4096
SLEEP_S = 0.1
SMALL_TILES_PER_REGION = (4096 // 256) ** 2


def measure(small: bool = False) -> list[Row]:
    slide = synthetic("workers.svs", SMALL_EDGE if small else EDGE, tissue=0.9)
    setup = partial(prepare_worker, "classical", "cpu")
    serial, one_worker, two_workers = SerialExecutor(setup), _dask(1, setup), _dask(2, setup)
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as parts:
        jobs = _jobs(slide, parts)
        gap_s = _gap_s(one_worker, jobs * 2) - _gap_s(serial, jobs * 2)
        region_s = _seconds(serial, process_region, jobs) / len(jobs)
        pairs = [
            (_seconds(one_worker, process_region, jobs), _seconds(two_workers, process_region, jobs))
            for _ in range(1 if small else ROUNDS)
        ]
        speedup = statistics.median(alone / both for alone, both in pairs)
    for executor in (serial, one_worker, two_workers):
        executor.close()
    us_per_tile, share, differ = gap_s / SMALL_TILES_PER_REGION * 1e6, gap_s / region_s, _files_that_differ(slide)
    return [
        Row("Dask over the serial loop, per tile of 256 px", us_per_tile, "us", "<= 20", us_per_tile <= 20),
        Row("Dask over the serial loop, of the wall", share, "share", "<= 0.02", share <= 0.02),
        Row(f"two workers / one, on {usable_cpus()} CPUs", speedup, "x", ">= 1.7", speedup >= 1.7),
        Row("files that differ between one and two workers", differ, "files", "0", differ == 0, always=True),
    ]


def _dask(workers: int, setup: Callable[[], None]) -> Executor:
    return DaskExecutor(ClusterOptions(workers=workers), setup)


def _jobs(slide: Path, parts: str) -> list[RegionJob]:
    job = prepare(
        str(slide),
        RunConfig(out=Path("unused"), region_size=REGION_PX, model="classical"),
        model_spec("classical"),
        "cpu",
    )
    folder = open_folder(Path(parts)).ref()
    return [RegionJob(job.ref, task, "classical", "cpu", folder) for task in job.plan.tasks()]


def pretend(job: RegionJob) -> int:
    """Takes the task of a region and answers, but sleeps in place of the work."""
    time.sleep(SLEEP_S)
    return job.task.index


def _gap_s(executor: Executor, jobs: list[RegionJob]) -> float:
    """Seconds per region beyond its own work."""
    return (_seconds(executor, pretend, jobs) - SLEEP_S * len(jobs)) / len(jobs)


def _seconds(executor: Executor, function: Callable[[RegionJob], Any], jobs: list[RegionJob]) -> float:
    list(executor.run(function, jobs[:2]))
    started = time.perf_counter()
    outcomes = list(executor.run(function, jobs))
    seconds = time.perf_counter() - started
    broken = [outcome.error for outcome in outcomes if outcome.error]
    if broken:
        raise broken[0]
    return seconds


def _files_that_differ(slide: Path) -> int:
    by_one, by_two = (measured_run([slide], workers=n)["files"][0] for n in (1, 2))
    return len(set(map(str, by_one.items())) ^ set(map(str, by_two.items())))


if __name__ == "__main__":
    print_rows(measure())
