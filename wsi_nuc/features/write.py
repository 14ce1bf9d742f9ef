"""The measured columns go into the table of a store that is not published yet, row group by row group.

Measuring comes after stitching, since only then it is known which nuclei there are and who their neighbours are. A
task is a row group of the written file: what it gives depends on the store and the slide alone, not on regions,
workers or their order. Pixels are read a second time, at half a micron whatever the model works at, so that
features of different models can be compared.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_nuc.executors.base import Execute
from wsi_nuc.features.job import GroupJob, ModelRef
from wsi_nuc.features.registry import features_of
from wsi_nuc.safezarr import open_array
from wsi_nuc.safezip import Folder
from wsi_nuc.store import durable, layout
from wsi_nuc.store.place import Place, PlaceRef
from wsi_nuc.store.reading import NucleiFile
from wsi_nuc.store.tables import write_columns
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import Float32, SlideRef

# Inside of the private folder: it goes where that goes, after a kill too.
SCRATCH = ".features"


@dataclass(frozen=True, slots=True)
class FileJob:
    """Measure `job` and leave the rows in the folder, as `name`: arrays do not travel through a scheduler."""

    job: GroupJob
    folder: PlaceRef
    name: str

    def __str__(self) -> str:
        return str(self.job)


def measure_to_file(job: FileJob) -> int:
    """Returns the number of rows. Doing it twice leaves the same file."""
    # Workers that only find nuclei stay without SciPy's geometry: 30 MiB and a third of a second each.
    from wsi_nuc.features.measure import measure

    rows, buffer = measure(job.job), io.BytesIO()
    np.save(buffer, rows)
    durable.atomic_write(job.folder.opened() / job.name, buffer.getvalue())
    return len(rows)


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Where they are: `store` with the shapes, `table` with the class probabilities (a Zarr array, which may have
    further columns); the slide that they were found on; the `model` whose embedding is wanted."""

    store: Path
    table: Folder
    slide: SlideRef
    mpp: float
    classes: tuple[str, ...]
    model: ModelRef | None = None


def write_features(folder: ZarrFolder, nuclei: Nuclei, execute: Execute) -> None:
    """X and `var` of the table, with the features after the probabilities."""
    scratch = folder.root / SCRATCH
    durable.make_dir(scratch)
    with NucleiFile(nuclei.store) as file:
        starts = file.starts
    jobs = [
        FileJob(
            GroupJob(str(nuclei.store), nuclei.slide, group, nuclei.mpp, nuclei.classes, nuclei.model),
            scratch.ref(),
            f"{group}.npy",
        )
        for group in range(len(starts) - 1)
    ]
    for outcome in execute(measure_to_file, jobs):
        if outcome.error is not None:
            raise outcome.error
    features = features_of(nuclei.classes, nuclei.model.size if nuclei.model else 0)
    about = {
        "name": [feature.name for feature in features],
        "family": [feature.family for feature in features],
        "unit": [feature.unit for feature in features],
        "about": [feature.about for feature in features],
    }
    write_columns(
        folder, nuclei.classes, about, _rows(nuclei, starts.tolist(), [scratch.path / job.name for job in jobs])
    )
    durable.remove_whole(scratch)


def _rows(nuclei: Nuclei, starts: Sequence[int], parts: Sequence[Path]) -> Iterator[Float32]:
    probabilities = open_array(nuclei.table)
    for part, start, stop in zip(parts, starts[:-1], starts[1:], strict=True):
        known = np.asarray(probabilities[start:stop])[:, : len(nuclei.classes)]
        yield np.concatenate([known, np.load(part)], axis=1)


def make_room(folder: ZarrFolder) -> Place:
    """Move the table's X of a folder that is being written out of the way; returns where it is now."""
    table = folder.root / layout.NUCLEI_TABLE
    moved = folder.root / f"{SCRATCH}/X"
    durable.make_dir(moved.parent)
    durable.rename(table / "X", moved)
    durable.remove_whole(table / "var")
    return moved
