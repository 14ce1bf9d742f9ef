"""A region that workers died of, in processes of its own: a tile that kills them is blamed alone.

The region is tried whole, then in halves, down to single tiles. A tile whose process dies time and again has no
result; all others have the one that they would have had, since nothing of a tile depends on its company.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wsi_nuc.errors import SlideError
from wsi_nuc.executors.apart import Died, call_apart
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.run.region import RegionJob, blamed, leave_part, loaded_model, prepare_worker, process_region
from wsi_nuc.run.tally import RegionReport, Tally
from wsi_nuc.store.parts import read_part
from wsi_nuc.store.place import open_folder
from wsi_nuc.types import Bool

TRIES = 3
MEMORY = "if memory ran out lower --workers or --region-size"

Part = tuple[NucleiTable, Bool, Tally]


def process(job: RegionJob) -> RegionReport:
    """Compute a region, apart if the job asks for it: the same part file either way, unless a tile kills."""
    return _process_apart(job) if job.apart else process_region(job)


def _process_apart(job: RegionJob) -> RegionReport:
    alone: list[Died] = []
    parts = list(_divided(job, job.task.region.tiles, alone))
    tally = sum((part[2] for part in parts), Tally())
    if len(alone) == tally.tiles > 1 and all(death.returncode == -signal.SIGKILL for death in alone):
        # No tile is to blame where none can be computed: something kills whatever runs.
        raise SlideError(job, f"every process that computed a tile of it was killed ({alone[0]})", MEMORY)
    return leave_part(
        job,
        NucleiTable.concat([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        tally,
    )


def _divided(job: RegionJob, tiles: tuple[int, ...], alone: list[Died]) -> Iterator[Part]:
    """Parts that have all of the tiles, in order; a death for each tile that could not be computed is noted."""
    for _ in range(TRIES if len(tiles) == 1 else 1):
        try:
            yield _computed(job, tiles)
            return
        except Died as died:
            death = died
    if len(tiles) > 1:
        middle = len(tiles) // 2
        yield from _divided(job, tiles[:middle], alone)
        yield from _divided(job, tiles[middle:], alone)
        return
    alone.append(death)
    cause = f"its process died in {TRIES} of {TRIES} tries ({death}); {MEMORY}"
    nothing = NucleiTable.empty(len(loaded_model(job.model, job.device, job.options).spec.classes))
    yield nothing, np.zeros(0, np.bool_), Tally(1, failed=(blamed(job, tiles[0], cause),))


def _computed(job: RegionJob, tiles: tuple[int, ...]) -> Part:
    """Those tiles of the region, by a process of their own."""
    region = job.task.grid.region(job.task.index, np.array(tiles))
    with TemporaryDirectory(prefix="wsi-nuc-apart-") as temporary:
        folder = open_folder(Path(temporary))
        only = replace(job, task=replace(job.task, region=region), parts=folder.ref(), apart=False)
        report = call_apart(partial(_prepared, only))
        table, own, _ = read_part(folder / report.part)
        return table, own, report.tally


def _prepared(job: RegionJob) -> RegionReport:
    prepare_worker(job.model, job.device, job.options)
    return process_region(job)
