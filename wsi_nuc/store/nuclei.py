"""From the stream of stitched nuclei to the GeoParquet, the probability table and the figures of the classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store import layout
from wsi_nuc.store.classes import ClassCounter, ClassRow
from wsi_nuc.store.geometry import crosses_core
from wsi_nuc.store.geoparquet import (
    DICTIONARIES,
    ROW_GROUP_ROWS,
    GeoParquetFile,
    Rows,
    nuclei_batch,
    nuclei_schema,
)
from wsi_nuc.store.tables import ProbabilityTable
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import Float64, Int64

CoreBoxes = Callable[[Int64], Float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written."""

    nuclei: int
    seam: int
    """How many nuclei more than one tile saw."""
    classes: tuple[ClassRow, ...]
    area_um2: float
    """Of all nuclei."""
    tissue_mm2: float
    usable_mm2: float
    """The tissue that could be looked at. The densities of the classes refer to it."""
    group_boxes_l0: Float64 = field(repr=False)
    """G x 4: the extent of every row group, for readers of a part."""

    @property
    def counts(self) -> dict[str, int]:
        return {row.name: row.count for row in self.classes}

    @property
    def class_figures(self) -> list[dict[str, Any]]:
        """One row per class, as in the root of the store, with None for what cannot be known."""
        areas = {"tissue_mm2": self.tissue_mm2, "usable_mm2": self.usable_mm2}
        rows = [(row.name, {**row.figures(), **areas}) for row in self.classes]
        return [
            {"class": name, **{key: value if math.isfinite(value) else None for key, value in row.items()}}
            for name, row in rows
        ]


class NucleiWriter:
    """Append tables in their final order, then `finish`. The row groups do not depend on the pieces of the input.

    `core_boxes_l0` maps N tile indices to the N x 4 boxes of these tiles' cores. `mpp` is microns per level-0 px.
    """

    def __init__(self, folder: ZarrFolder, classes: Sequence[str], mpp: float, core_boxes_l0: CoreBoxes) -> None:
        self._folder, self._classes, self._core_boxes_l0 = folder, list(classes), core_boxes_l0
        self._um2_per_px = mpp * mpp
        self._counter = ClassCounter(self._classes)
        self._probabilities = ProbabilityTable(folder, self._classes)
        path = folder.root / layout.NUCLEI_SHAPES / layout.PARQUET
        self._parquet = GeoParquetFile(path, nuclei_schema(len(self._classes)), ["Polygon"], DICTIONARIES)
        self._held: list[NucleiTable] = []
        self._written = self._seam = 0
        self._group_boxes: list[Float64] = []

    def append(self, table: NucleiTable) -> None:
        if len(table):
            self._held.append(table)
        if sum(map(len, self._held)) >= ROW_GROUP_ROWS:
            self._write_full_groups()

    def _write_full_groups(self) -> None:
        held, self._held = NucleiTable.concat(self._held), []
        full = len(held) - len(held) % ROW_GROUP_ROWS
        for start in range(0, full, ROW_GROUP_ROWS):
            self._write_group(held.between(start, start + ROW_GROUP_ROWS))
        # A copy: a view would keep the rows that were written.
        self._held = [NucleiTable.concat([held.between(full, len(held))])] if full < len(held) else []

    def _write_group(self, table: NucleiTable) -> None:
        bounds = table.bounds()
        seam = crosses_core(bounds, self._core_boxes_l0(table.tile))
        group = Rows.of(table, self._written + 1, bounds, seam)
        self._parquet.write(nuclei_batch(group, self._classes, self._um2_per_px), bounds)
        class_id = table.class_id
        self._counter.add(class_id, group.area_px * self._um2_per_px)
        ids = np.arange(group.first_id, group.first_id + len(table))
        self._probabilities.append(ids, class_id, table.class_probs)
        self._group_boxes.append(np.hstack([bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)]))
        self._written += len(table)
        self._seam += int(seam.sum())

    def finish(self, tissue_mm2: float, usable_mm2: float | None = None) -> Summary:
        """Write the rows that are held, and the footers. `usable_mm2`: the part of the tissue that could be looked
        at; all of it by default."""
        if self._held:
            self._write_group(NucleiTable.concat(self._held))
            self._held = []
        self._parquet.close()
        self._probabilities.finish()
        layout.shapes_group(self._folder, layout.NUCLEI_SHAPES, self._written)
        usable_mm2 = tissue_mm2 if usable_mm2 is None else usable_mm2
        classes = tuple(self._counter.rows(usable_mm2))
        boxes = np.array(self._group_boxes).reshape(-1, 4)
        area_um2 = self._counter.area_um2
        return Summary(self._written, self._seam, classes, area_um2, tissue_mm2, usable_mm2, boxes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is not None:
            self._parquet.abandon()
            self._probabilities.abandon()
