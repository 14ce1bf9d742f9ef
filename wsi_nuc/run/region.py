"""What one worker does for one region: read, predict tile by tile, change the frame, write the part file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import cv2
import numpy as np
import psutil

from wsi_nuc.errors import ModelError, SlideError, StorageError
from wsi_nuc.inference.predict import Prediction, predict_counted
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.domain import looks_of
from wsi_nuc.models.registry import load_model
from wsi_nuc.nuclei import NucleiTable, TileNuclei
from wsi_nuc.run.level0 import inside_and_valid, to_level0, touching
from wsi_nuc.run.resources import TILES_PER_TRIM, Heap
from wsi_nuc.run.tally import BadPlace, Clock, RegionReport, Tally
from wsi_nuc.slides.cache import cached_slide
from wsi_nuc.store.parts import read_part, write_part
from wsi_nuc.store.place import Place, PlaceRef
from wsi_nuc.tiling.plan import RegionTask
from wsi_nuc.tiling.read import TilePixels, read_region
from wsi_nuc.types import Bool, Int64, SlideInfo, SlideRef, TileBatch

Options = tuple[tuple[str, Any], ...]

# A nucleus that comes as near to a gap as this has lost a part to it, as far as anybody can tell.
CUT_WITHIN_UM = 1.0


@dataclass(frozen=True, slots=True)
class RegionJob:
    """Everything a worker needs for one region; a few kilobytes, however large the slide."""

    slide: SlideRef
    task: RegionTask
    model: str
    """Name or file."""
    device: str
    parts: PlaceRef
    """The folder of its part file."""
    options: Options = ()
    """Name and value of every way in which the model is used other than its file says."""
    apart: bool = False
    """In processes of its own, since workers died of it."""

    def alone(self) -> RegionJob:
        """For executors: the same region, computed such that no tile of it kills a worker."""
        return replace(self, apart=True)

    def __str__(self) -> str:
        return f"{self.slide.path}, region {self.task.index}"


def prepare_worker(model: str, device: str, options: Options = ()) -> None:
    """Called once in every process that computes regions."""
    cv2.setNumThreads(1)
    if loaded_model(model, device, options).spec.uses_torch and device == "cpu":
        import torch

        # As many workers as CPUs do the work, and how a sum is split over threads may show in its last bits.
        torch.set_num_threads(1)
    # What loading leaves behind, too.
    _heap.used(TILES_PER_TRIM)


def process_region(job: RegionJob) -> RegionReport:
    """Compute one region and leave its part file. Doing it twice gives the same file."""
    clock = Clock()
    model = loaded_model(job.model, job.device, job.options)
    with clock.stage("read"):
        source = cached_slide(job.slide)
        pixels = list(read_region(source, job.task))
    failed = [blamed(job, tile.tile.index, tile.cause) for tile in pixels if tile.status == "failed"]
    gaps = {tile.tile.index: tile.gaps for tile in pixels if tile.gaps}
    tables, own, repairs, cut = [NucleiTable.empty(len(model.spec.classes))], [np.zeros(0, np.bool_)], 0, 0
    looks = _looks(pixels) if model.spec.domain else ()
    for batch in _batches(pixels, model.spec.batch):
        with clock.stage("predict"):
            predictions, problems = _predict_or_blame(model, batch, job)
        failed += problems
        with clock.stage("level0"):
            for prediction in predictions:
                table, kept, changed = _to_slide(prediction.nuclei, job, source.info)
                whole = ~touching(table, gaps, _margin_l0(job.task))
                cut += int(np.sum(prediction.own[kept] & ~whole))
                tables.append(table.select(whole) if not whole.all() else table)
                own.append(prediction.own[kept[whole]])
                repairs += prediction.repaired + changed
    tally = Tally.of(pixels, failed, repairs=repairs, cut=cut, looks=looks)
    with clock.stage("write part"):
        part = leave_part(job, NucleiTable.concat(tables), np.concatenate(own), tally)
    memory = psutil.Process().memory_info().rss
    _heap.used(len(job.task.region.tiles))
    return replace(part, seconds=dict(clock.seconds), rss_bytes=memory)


def leave_part(job: RegionJob, table: NucleiTable, own: Bool, tally: Tally) -> RegionReport:
    """The part carries the report without its timings: the same region has the same bytes each time."""
    name = write_part(job.parts.opened(), job.task.index, table, own, tally.document())
    return RegionReport(job.task.index, name, len(table), tally)


def read_report(index: int, part: Place) -> RegionReport:
    """The report that a part file carries."""
    table, _, stored = read_part(part)
    return RegionReport(index, part.name, len(table), Tally.from_document(stored))


_heap = Heap()


@lru_cache(maxsize=2)
def loaded_model(name: str, device: str, options: Options = ()) -> NucleiModel:
    """The model of this process: loaded once, however many slides ask for it."""
    return load_model(name, device, dict(options)) if options else load_model(name, device)


def _batches(pixels: Sequence[TilePixels], size: int) -> Iterator[TileBatch]:
    usable = (tile for tile in pixels if tile.rgb is not None)
    while group := list(islice(usable, size)):
        yield TileBatch(
            np.stack([tile.rgb for tile in group if tile.rgb is not None]), tuple(t.tile for t in group)
        )


def _predict_or_blame(
    model: NucleiModel, batch: TileBatch, job: RegionJob
) -> tuple[list[Prediction], list[BadPlace]]:
    """Predict the batch; where that fails, each tile alone, so that only the tile at fault is lost."""
    try:
        return [predict_counted(model, batch)], []
    except (ModelError, StorageError):
        raise
    except Exception as error:  # noqa: BLE001 - the tile boundary: whatever a tile provokes is that tile's failure
        if len(batch.tiles) == 1:
            cause = f"{type(error).__name__}: {error}"
            if isinstance(error, SlideError):
                cause = f"{error.cause}; {error.remedy}" if error.remedy else error.cause
            return [], [blamed(job, batch.tiles[0].index, cause)]
    predictions: list[Prediction] = []
    bad: list[BadPlace] = []
    for row, tile in enumerate(batch.tiles):
        alone = TileBatch(batch.rgb[row : row + 1], (tile,))
        good, problems = _predict_or_blame(model, alone, job)
        predictions += good
        bad += problems
    return predictions, bad


def _to_slide(nuclei: TileNuclei, job: RegionJob, info: SlideInfo) -> tuple[NucleiTable, Int64, int]:
    """The rows in level-0 pixels whose prompt lies in the wanted area; which rows of `nuclei` they are."""
    table = to_level0(nuclei, job.task.grid)
    wanted = np.flatnonzero(job.task.inside(table.prompt_xy))
    table, left, changed = inside_and_valid(table.select(wanted), info)
    return table, wanted[left], changed


def _margin_l0(task: RegionTask) -> float:
    return CUT_WITHIN_UM * task.l0_per_grid / task.scale.grid_mpp


def blamed(job: RegionJob, tile: int, cause: str) -> BadPlace:
    """The whole core of a tile without a result."""
    x0, y0, x1, y1 = job.task.grid.core_boxes_l0(np.array([tile]))[0].tolist()
    return BadPlace(tile, (x0, y0, x1, y1), cause)


def _looks(pixels: Sequence[TilePixels]) -> tuple[tuple[float, ...], ...]:
    looks = (looks_of(tile.rgb) for tile in pixels if tile.rgb is not None)
    return tuple(numbers for numbers in looks if numbers is not None)
