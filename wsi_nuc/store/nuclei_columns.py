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
from wsi_nuc.store.column_record import Column, described
from wsi_nuc.store.geometry import crosses_core
from wsi_nuc.store.geoparquet import BOX_AND_GEOMETRY, GeoParquetFile, bbox_array, bbox_type, wkb_array
from wsi_nuc.store.tables import ProbabilityTable, texts, to_arrow
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import Bool, Float64, Int64

CoreBoxes = Callable[[Int64], Float64]
ROW_GROUP_ROWS = 16_384
DICTIONARIES = ("class", "class_id", "tile")
NUCLEI = (
    Column(
        "id",
        "",
        "number of the nucleus in the store, in the order of the rows, which is spatial",
        "1 to the number of nuclei",
    ),
    Column(
        "class",
        "",
        "the most probable class, the first one at a tie; its probability is in `tables/nuclei_table`, and not in "
        "`score`",
        "the names of the model's classes",
    ),
    Column("class_id", "", "number of the class in the model's order", "whole numbers from 0"),
    Column(
        "score",
        "",
        "how sure the model is that this is a nucleus with this outline, whatever its class. It is not the "
        "confidence in the class, and can fall where that rises. Default model: the probability that a nucleus is "
        "there and its outline right, calibrated on validation images from prompt_score and predicted_iou. "
        "classical: c / (c + 0.5) for the contrast c of the nucleus, no probability. PromptNucSeg: prompt_score "
        "times predicted_iou, cut to 0 to 1; in parity mode predicted_iou alone. Cells from elsewhere: what their "
        "file says, 1 if it says nothing",
        "0 to 1; the default model keeps nothing below its option `least_score`",
    ),
    Column(
        "prompt_score",
        "",
        "how sure the model is of the point that the outline grew from: the height of its map there (default "
        "model), the score of the network (PromptNucSeg), s / (s + 300) for the strength s of a blob (classical). "
        "Not calibrated: compare it within one model only. Models without points, and cells from elsewhere, "
        "repeat score",
        "0 to 1",
    ),
    Column(
        "predicted_iou",
        "",
        "the model's own estimate of the overlap (intersection over union) of its outline with the true one",
        "0 to 1; estimates of PromptNucSeg may exceed that a little",
        "the model estimates none: classical, models without points, cells from elsewhere",
    ),
    Column(
        "tile",
        "",
        "the tile of the run's grid that the nucleus was found in, row by row from 0; 0 for cells from elsewhere",
        "whole numbers from 0",
    ),
    Column(
        "seam",
        "",
        "whether the box of the nucleus crosses the border of the core of its tile, so that other tiles saw it",
        "true or false",
    ),
    Column("x", "px", "x of the polygon's centroid in level-0 pixels; times the slide's mpp: um", "on the slide"),
    Column("y", "px", "y of the polygon's centroid in level-0 pixels, downwards", "on the slide"),
    Column("area_um2", "um2", "area of the polygon: that in level-0 pixels times mpp2", "above 0"),
    *BOX_AND_GEOMETRY,
)


@dataclass(frozen=True, slots=True)
class Rows:
    """A row group of N nuclei, with what is derived from their rings."""

    table: NucleiTable
    first_id: int
    """The number of the first row; the others follow."""
    seam: Bool
    """N: whether more than one tile saw the nucleus."""
    bounds_l0: Float64
    """N x 4: x0, y0, x1, y1, in level-0 pixels."""
    area_px: Float64
    """N: in level-0 pixels."""
    centre_l0: Float64
    """N x 2: centroids, in level-0 pixels."""

    @classmethod
    def of(cls, table: NucleiTable, first_id: int, bounds_l0: Float64, seam: Bool) -> Rows:
        area, centre = table.areas_and_centres()
        return cls(table, first_id, seam, bounds_l0, area, centre)


def _class_type(classes: int) -> Any:
    import pyarrow as pa

    return pa.int8() if classes <= 127 else pa.int16()


def nuclei_schema(classes: int) -> Any:
    import pyarrow as pa

    fields = [
        ("id", pa.int64()),
        ("class", pa.dictionary(_class_type(classes), pa.string())),
        ("class_id", pa.int16()),
        ("score", pa.float32()),
        ("prompt_score", pa.float32()),
        ("predicted_iou", pa.float32()),
        ("tile", pa.int64()),
        ("seam", pa.bool_()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("area_um2", pa.float64()),
        ("bbox", bbox_type()),
        ("geometry", pa.binary()),
    ]
    optional = {"predicted_iou"}
    schema = pa.schema([pa.field(name, kind, nullable=name in optional) for name, kind in fields])
    return described(schema, NUCLEI)


def nuclei_batch(rows: Rows, classes: Sequence[str], um2_per_px: float) -> Any:
    """The columns of one row group."""
    import pyarrow as pa

    table, schema = rows.table, nuclei_schema(len(classes))
    class_id = table.class_id
    codes = to_arrow(class_id.astype(_class_type(len(classes)).to_pandas_dtype()))
    columns = [
        to_arrow(np.arange(rows.first_id, rows.first_id + len(table))),
        pa.DictionaryArray.from_arrays(codes, texts(classes)),
        to_arrow(class_id.astype(np.int16)),
        to_arrow(table.score),
        to_arrow(table.prompt_score),
        to_arrow(table.predicted_iou, nan_is_null=True),
        to_arrow(table.tile),
        to_arrow(rows.seam),
        to_arrow(rows.centre_l0[:, 0]),
        to_arrow(rows.centre_l0[:, 1]),
        to_arrow(rows.area_px * um2_per_px),
        bbox_array(rows.bounds_l0),
        wkb_array(table),
    ]
    return pa.record_batch(columns, schema=schema)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written."""

    nuclei: int
    seam: int
    """How many nuclei more than one tile saw."""
    classes: tuple[ClassRow, ...]
    area_um2: float
    """Of all nuclei."""
    median_um2: float
    """The median area of all nuclei; NaN without one."""
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
        area_um2 = group.area_px * self._um2_per_px
        self._counter.add(table.class_id, area_um2)
        ids = np.arange(group.first_id, group.first_id + len(table))
        self._probabilities.append(ids, table, group.centre_l0, area_um2)
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
        areas = (self._counter.area_um2, self._counter.median_um2)
        return Summary(self._written, self._seam, classes, *areas, tissue_mm2, usable_mm2, boxes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is not None:
            self._parquet.abandon()
            self._probabilities.abandon()
