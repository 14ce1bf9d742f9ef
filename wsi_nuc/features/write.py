"""Measures the nuclei of a store that is not published yet, and writes the columns into its table.

Measuring comes after stitching, since only then the nuclei and their neighbours are known. There is one task per
row group of the written file. Its values depend on the store and the slide alone, not on regions, workers or
their order. Pixels are read a second time, always at half a micron, which makes features of different models
comparable.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_nuc.executors.base import Execute
from wsi_nuc.features.job import GroupJob, ModelRef, Vectors
from wsi_nuc.features.registry import REACH_UM, features_of
from wsi_nuc.safezarr import open_array
from wsi_nuc.safezip import Folder
from wsi_nuc.store import durable, layout
from wsi_nuc.store.place import Place, PlaceRef
from wsi_nuc.store.reading import NucleiFile, meet
from wsi_nuc.store.tables import write_columns
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import Float32, SlideRef

# Inside the private folder, so that it is removed together with it, also after a kill.
SCRATCH = ".features"


@dataclass(frozen=True, slots=True)
class FileJob:
    """Measures `job` and leaves the rows in a file, since arrays do not travel through a scheduler."""

    job: GroupJob
    folder: PlaceRef
    name: str
    """Name of the file in the folder."""

    def __str__(self) -> str:
        return str(self.job)


def measure_to_file(job: FileJob) -> int:
    """Returns the number of rows. A second call leaves the same file."""
    # Imported here so that workers that only find nuclei do without SciPy's geometry: 30 MiB and a third of a
    # second each.
    from wsi_nuc.features.measure import measure

    rows, buffer = measure(job.job), io.BytesIO()
    np.save(buffer, rows)
    durable.atomic_write(job.folder.opened() / job.name, buffer.getvalue())
    return len(rows)


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Where the nuclei are, and what to measure them on."""

    store: Path
    """Holds the shapes."""
    table: Folder
    """A Zarr array with the class probabilities, which may have further columns."""
    slide: SlideRef
    """The slide that they were found on."""
    mpp: float
    classes: tuple[str, ...]
    model: ModelRef | None = None
    """The model whose embedding is asked for."""
    dab: Vectors | None = None
    """The stains, where DAB is measured."""
    lost_l0: Sequence[Sequence[int]] = ()
    """x0, y0, x1, y1 of the places without a result."""


def write_features(folder: ZarrFolder, nuclei: Nuclei, execute: Execute) -> None:
    """Write X and `var` of the table, with the features after the probabilities."""
    scratch = folder.root / SCRATCH
    durable.make_dir(scratch)
    with NucleiFile(nuclei.store) as file:
        starts, boxes_l0 = file.starts, file.group_boxes_l0
    jobs = [
        FileJob(_job(nuclei, group, box_l0), scratch.ref(), f"{group}.npy")
        for group, box_l0 in enumerate(boxes_l0.tolist())
    ]
    for outcome in execute(measure_to_file, jobs):
        if outcome.error is not None:
            raise outcome.error
    features = features_of(nuclei.classes, nuclei.model.size if nuclei.model else 0, nuclei.dab is not None)
    write_columns(
        folder, nuclei.classes, features, _rows(nuclei, starts.tolist(), [scratch.path / job.name for job in jobs])
    )
    durable.remove_whole(scratch)


def _job(nuclei: Nuclei, group: int, box_l0: Sequence[float]) -> GroupJob:
    reach = REACH_UM / nuclei.mpp
    x0, y0, x1, y1 = (side + way * reach for side, way in zip(box_l0, (-1, -1, 1, 1), strict=True))
    lost = np.array(nuclei.lost_l0, np.float64).reshape(-1, 4)
    near = tuple(map(tuple, lost[meet(lost, (x0, y0, x1, y1))].tolist()))
    store, slide, model = str(nuclei.store), nuclei.slide, nuclei.model
    return GroupJob(store, slide, group, nuclei.mpp, nuclei.classes, model, near, nuclei.dab)


def _rows(nuclei: Nuclei, starts: Sequence[int], parts: Sequence[Path]) -> Iterator[Float32]:
    probabilities = open_array(nuclei.table)
    for part, start, stop in zip(parts, starts[:-1], starts[1:], strict=True):
        known = np.asarray(probabilities[start:stop])[:, : len(nuclei.classes)]
        yield np.concatenate([known, np.load(part)], axis=1)


def make_room(folder: ZarrFolder) -> Place:
    """Move X of the table out of the way, in a folder that is being written. Returns where it is now."""
    table = folder.root / layout.NUCLEI_TABLE
    moved = folder.root / f"{SCRATCH}/X"
    durable.make_dir(moved.parent)
    durable.rename(table / "X", moved)
    durable.remove_whole(table / "var")
    return moved
