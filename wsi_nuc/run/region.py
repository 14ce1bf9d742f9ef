"""What one worker does for one region: read, predict tile by tile, change the frame, write the part file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from wsi_nuc.errors import ModelError, SlideError, StorageError
from wsi_nuc.inference.predict import Prediction, predict_counted
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.domain import looks_of
from wsi_nuc.models.registry import load_model
from wsi_nuc.run.level0 import inside_and_valid, to_level0
from wsi_nuc.slides.cache import cached_slide
from wsi_nuc.store.parts import write_part
from wsi_nuc.tiling.read import TilePixels, read_region
from wsi_nuc.tiling.task import RegionTask
from wsi_nuc.types import (
    Bool,
    Int64,
    NucleiTable,
    SlideInfo,
    SlideRef,
    TileBatch,
    TileCounts,
    TileNuclei,
)

Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class RegionJob:
    """Everything a worker needs for one region; a few kilobytes, however large the slide. `options`: name and
    value of every way in which the model is used other than its file says."""

    slide: SlideRef
    task: RegionTask
    model: str
    device: str
    parts_dir: str
    options: Options = ()

    def __str__(self) -> str:
        return f"{self.slide.path}, region {self.task.index}"


@dataclass(frozen=True, slots=True, order=True)
class BadTile:
    """A tile without complete pixels or results; `box_l0` is its core: x0, y0, x1, y1 in level-0 pixels."""

    tile: int
    box_l0: tuple[float, float, float, float]
    cause: str


@dataclass(frozen=True, slots=True)
class RegionReport:
    """Counts of one region; `part` is its file. All but `seconds` by stage and memory is stored in that file."""

    index: int
    part: str
    nuclei: int
    counts: TileCounts
    missing: tuple[BadTile, ...]
    failed: tuple[BadTile, ...]
    repairs: int
    looks: tuple[tuple[float, ...], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    rss_bytes: int = 0


def prepare_worker(model: str, device: str, options: Options = ()) -> None:
    """Called once in every process that computes regions."""
    cv2.setNumThreads(1)
    if loaded_model(model, device, options).spec.uses_torch and device == "cpu":
        import torch

        # As many workers as CPUs do the work, and how a sum is split over threads may show in its last bits.
        torch.set_num_threads(1)


def process_region(job: RegionJob) -> RegionReport:
    """Compute one region and leave its part file. Doing it twice gives the same file."""
    clock = Clock()
    model = loaded_model(job.model, job.device, job.options)
    with clock.stage("read"):
        source = cached_slide(job.slide)
        pixels = list(read_region(source, job.task))
    failed = [_bad(one, job) for one in pixels if one.status == "failed"]
    missing = [_bad(one, job) for one in pixels if one.status == "missing"]
    tables, own, repairs = [NucleiTable.empty(len(model.spec.classes))], [np.zeros(0, np.bool_)], 0
    looks = _looks(pixels) if model.spec.domain else []
    for batch in _batches(pixels, model.spec.batch):
        with clock.stage("predict"):
            found, problems = _predict_or_blame(model, batch, job)
        failed += problems
        with clock.stage("level0"):
            for one in found:
                table, kept, changed = _to_slide(one.nuclei, job, source.info)
                tables.append(table)
                own.append(one.own[kept])
                repairs += one.repaired + changed
    bad = _BadTiles(tuple(sorted(missing)), tuple(sorted(failed)))
    with clock.stage("write part"):
        found_all = (NucleiTable.concat(tables), np.concatenate(own))
        return _write(job, found_all, bad, {"repairs": repairs, "looks": looks}, clock)


def report_of(index: int, part: str, stored: dict[str, Any]) -> RegionReport:
    """The report that a part file carries."""
    return RegionReport(
        index=index,
        part=part,
        nuclei=stored["nuclei"],
        counts=TileCounts(**stored["counts"]),
        missing=tuple(BadTile(tile, tuple(box), cause) for tile, box, cause in stored["missing"]),
        failed=tuple(BadTile(tile, tuple(box), cause) for tile, box, cause in stored["failed"]),
        repairs=stored["repairs"],
        looks=tuple(tuple(one) for one in stored["looks"]),
    )


class Clock:
    """Seconds by stage, summed over repeated stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class _BadTiles:
    missing: tuple[BadTile, ...]
    failed: tuple[BadTile, ...]


@lru_cache(maxsize=2)
def loaded_model(name: str, device: str, options: Options = ()) -> NucleiModel:
    """The model of this process: loaded once, however many slides ask for it."""
    return load_model(name, device, dict(options)) if options else load_model(name, device)


def _batches(pixels: Sequence[TilePixels], size: int) -> Iterator[TileBatch]:
    usable = (one for one in pixels if one.rgb is not None)
    while some := list(islice(usable, size)):
        yield TileBatch(np.stack([one.rgb for one in some if one.rgb is not None]), tuple(p.tile for p in some))


def _predict_or_blame(
    model: NucleiModel, batch: TileBatch, job: RegionJob
) -> tuple[list[Prediction], list[BadTile]]:
    """Predict the batch; where that fails, each tile alone, so that only the tile at fault is lost."""
    try:
        return [predict_counted(model, batch)], []
    except (ModelError, StorageError):
        raise
    except Exception as error:  # noqa: BLE001 - the tile boundary: whatever a tile provokes is that tile's failure
        if len(batch.tiles) == 1:
            cause = error.cause if isinstance(error, SlideError) else f"{type(error).__name__}: {error}"
            tile = batch.tiles[0]
            return [], [BadTile(tile.index, _core_l0(job, tile.index), cause)]
    found: list[Prediction] = []
    bad: list[BadTile] = []
    for row, tile in enumerate(batch.tiles):
        alone = TileBatch(batch.rgb[row : row + 1], (tile,))
        good, problems = _predict_or_blame(model, alone, job)
        found += good
        bad += problems
    return found, bad


def _to_slide(nuclei: TileNuclei, job: RegionJob, info: SlideInfo) -> tuple[NucleiTable, Int64, int]:
    """The rows in level-0 pixels whose prompt lies in the wanted area; which rows of `nuclei` they are."""
    table = to_level0(nuclei, job.task.grid)
    wanted = np.flatnonzero(job.task.inside(table.prompt_xy))
    table, left, changed = inside_and_valid(table.select(wanted), info)
    return table, wanted[left], changed


def _core_l0(job: RegionJob, tile: int) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = job.task.grid.core_boxes_l0(np.array([tile]))[0].tolist()
    return x0, y0, x1, y1


def _bad(pixels: TilePixels, job: RegionJob) -> BadTile:
    return BadTile(pixels.tile.index, _core_l0(job, pixels.tile.index), pixels.cause)


def _looks(pixels: Sequence[TilePixels]) -> list[tuple[float, ...]]:
    found = (looks_of(one.rgb) for one in pixels if one.rgb is not None)
    return [one for one in found if one is not None]


def _write(
    job: RegionJob, found: tuple[NucleiTable, Bool], bad: _BadTiles, noted: dict[str, Any], clock: Clock
) -> RegionReport:
    """The part carries the report without its timings: the same region has the same bytes each time."""
    table, own = found
    gone = {one.tile for one in bad.failed}
    missing = tuple(one for one in bad.missing if one.tile not in gone)
    processed = len(job.task.region.tiles) - len(missing) - len(bad.failed)
    counts = TileCounts(processed=processed, missing=len(missing), failed=len(bad.failed))
    stored = {
        "nuclei": len(table),
        "counts": asdict(counts),
        "missing": [astuple(one) for one in missing],
        "failed": [astuple(one) for one in bad.failed],
        **noted,
    }
    part = write_part(Path(job.parts_dir), job.task.index, table, own, stored)
    memory = psutil.Process().memory_info().rss
    return replace(report_of(job.task.index, part.path, stored), seconds=dict(clock.seconds), rss_bytes=memory)
