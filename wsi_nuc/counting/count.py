"""Nuclei and their density per mm2 of usable tissue, in regions or on a grid, from a published store.

A nucleus is where its centroid is. Usable is the tissue that was searched, less the places that could not be
decoded or computed. Nothing is run again, and memory holds one row group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.counting.regions import WRONG_PIXELS, Regions, read_regions, whole_slide
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.features.dab import MEAN, is_measured
from wsi_nuc.features.summary import usable_tissue
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.store.reading import class_names, read_tissue
from wsi_nuc.store.verify import verified_manifest
from wsi_nuc.tissue.area import pieces
from wsi_nuc.types import Float64, Int64

MOST_CELLS = 2_000_000
_AT_ONCE = 100_000
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What is counted, and where. Without regions and grid it is the slide as a whole."""

    classes: tuple[str, ...] = ()
    """Only these; all by default."""
    min_score: float = 0.0
    positive_above: float | None = None
    """OD: a nucleus with more DAB on average is positive. None: positive nuclei are not counted."""
    regions: Path | None = None
    """GeoJSON."""
    unit_um: bool = False
    """The regions are in micrometres, and not in level-0 pixels."""
    grid_um: float | None = None
    """Edge of a cell. Cells count from the corner of the slide."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Square cells from the corner of the slide, row by row. A cell holds its left and upper side."""

    edge_l0: float
    columns: int
    rows: int

    @classmethod
    def over(cls, width: int, height: int, edge_l0: float) -> Grid:
        columns, rows = (math.ceil(size / edge_l0) for size in (width, height))
        if columns * rows > MOST_CELLS:
            cause = f"makes {columns * rows:,} cells, more than {MOST_CELLS:,}"
            raise UsageError("--grid", cause, "choose larger cells")
        return cls(edge_l0, columns, rows)

    def __len__(self) -> int:
        return self.columns * self.rows

    def places(self, xy: Float64) -> tuple[Int64, Int64]:
        """The row of each point, and its cell."""
        column, row = np.floor(xy / self.edge_l0).astype(np.int64).T
        cell = np.clip(row, 0, self.rows - 1) * self.columns + np.clip(column, 0, self.columns - 1)
        return np.arange(len(xy)), cell

    def boxes(self, cells: Int64) -> Float64:
        """N x 4."""
        row, column = np.divmod(cells, self.columns)
        low = np.column_stack([column, row]).astype(np.float64)
        return np.hstack([low, low + 1]) * self.edge_l0


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer for one slide."""

    rows: list[Row]
    classes: tuple[str, ...]
    """Those that were counted, in the order of the model."""
    regions: Regions | None = None
    """What was read, where the question has regions."""


def count(store: Path, question: Question) -> Counted:
    """One row per region, or per cell with tissue or nuclei."""
    manifest = verified_manifest(store)
    mpp, size = float(manifest["slide"]["mpp"]), _size(store, manifest)
    names = class_names(store)
    wanted = _wanted(names, question)
    if question.positive_above is not None and not is_measured(store):
        raise UsageError(store, "has no density of DAB", "measure it: `wsi-nuc features STORE --dab`")
    places = _places(question, size, mpp)
    tissue = usable_tissue(read_tissue(store)[0], manifest)
    table = _counts(store, question, places, (wanted, manifest["counts"]["nuclei"]))
    if isinstance(places, Grid):
        cells, rows = _cells(places, table, tissue, mpp)
    else:
        cells, rows = np.arange(len(places)), _regions(places, tissue, mpp)
        if question.regions is not None and len(tissue) and not any(row["usable_mm2"] for row in rows):
            raise UsageError(question.regions, "none of its regions meets usable tissue", WRONG_PIXELS)
    chosen = [name for name, is_wanted in zip(names, wanted, strict=True) if is_wanted]
    for row, counts in zip(rows, table[cells][:, :, wanted], strict=True):
        row.update(figures(counts, chosen, row["usable_mm2"]))
    read = places if isinstance(places, Regions) and question.regions is not None else None
    return Counted(rows, tuple(chosen), read)


def _size(store: Path, manifest: Row) -> tuple[int, int]:
    slide = manifest["slide"]
    try:
        return int(slide["width_px"]), int(slide["height_px"])
    except KeyError:
        raise StorageError(store, "does not say how large its slide is", "run the slide again") from None


def _wanted(names: Sequence[str], question: Question) -> npt.NDArray[np.bool_]:
    for name in question.classes:
        if name not in names:
            raise UsageError(f"--class {name}", "the store has no such class", f"it has {', '.join(names)}")
    return np.array([not question.classes or name in question.classes for name in names], np.bool_)


def _places(question: Question, size: tuple[int, int], mpp: float) -> Regions | Grid:
    if question.regions is not None:
        return read_regions(question.regions, *size, 1 / mpp if question.unit_um else 1.0)
    if question.grid_um is not None:
        return Grid.over(*size, question.grid_um / mpp)
    return whole_slide(*size)


def _counts(
    store: Path, question: Question, places: Regions | Grid, of: tuple[npt.NDArray[np.bool_], int]
) -> Int64:
    """Places x 3 x classes: nuclei, those with a density of DAB, and positive ones; x 1 without a limit."""
    wanted, nuclei = of
    limit, classes = question.positive_above, len(wanted)
    out = np.zeros((len(places), 3 if limit is not None else 1, classes), np.int64)
    columns = ["x", "y", "class_id", "score", *([MEAN] if limit is not None else [])]
    with NucleiReader(store, columns) as reader:
        if reader.rows != nuclei:
            cause = f"holds {reader.rows:,} nuclei, its manifest says {nuclei:,}"
            raise StorageError(store, cause, "`wsi-nuc verify` says what is wrong")
        for group in range(reader.groups):
            values = reader.values(group)
            label = values["class_id"].astype(np.int64)
            kept = np.flatnonzero((values["score"] >= question.min_score) & wanted[label])
            xy = np.column_stack([values["x"][kept], values["y"][kept]])
            row, place = places.places(xy)
            layers = [np.ones(len(row), np.bool_)]
            if limit is not None:
                mean = values[MEAN][kept][row]
                layers += [np.isfinite(mean), mean > limit]
            code = place * classes + label[kept][row]
            for layer, held in enumerate(layers):
                codes, numbers = np.unique(code[held], return_counts=True)
                out[codes // classes, layer, codes % classes] += numbers
    return out


def _regions(regions: Regions, tissue: Any, mpp: float) -> list[Row]:
    mm2 = (mpp / 1000) ** 2
    areas = zip(shapely.area(regions.shapes).tolist(), areas_within(regions.shapes, tissue).tolist(), strict=True)
    return [
        {"region": i + 1, "name": name, "region_class": kind, "area_mm2": area * mm2, "usable_mm2": usable * mm2}
        for i, (name, kind, (area, usable)) in enumerate(zip(regions.names, regions.kinds, areas, strict=True))
    ]


def _cells(grid: Grid, table: Int64, tissue: Any, mpp: float) -> tuple[Int64, list[Row]]:
    """The cells with usable tissue or counted nuclei."""
    cells = np.flatnonzero(table[:, 0].sum(axis=1) > 0)
    cells = np.unique(np.concatenate([cells, *(_met(grid, polygon) for polygon in tissue)]))
    usable = areas_within(shapely.box(*grid.boxes(cells).T), tissue) * (mpp / 1000) ** 2
    kept = (usable > 0) | (table[cells, 0].sum(axis=1) > 0)
    cells, usable = cells[kept], usable[kept]
    row, column = np.divmod(cells, grid.columns)
    corners = grid.boxes(cells)[:, :2] * mpp
    area_mm2 = (grid.edge_l0 * mpp / 1000) ** 2
    names = ("column", "row", "x0_um", "y0_um", "area_mm2", "usable_mm2")
    values = (column, row, *corners.T, np.full(len(cells), area_mm2), usable)
    return cells, [dict(zip(names, of, strict=True)) for of in zip(*(v.tolist() for v in values), strict=True)]


def _met(grid: Grid, polygon: Any) -> Int64:
    """The cells that the box of a polygon meets."""
    x0, y0, x1, y1 = np.floor(np.array(shapely.bounds(polygon)) / grid.edge_l0).astype(np.int64).tolist()
    columns = np.arange(max(x0, 0), min(x1 + 1, grid.columns))
    rows = np.arange(max(y0, 0), min(y1 + 1, grid.rows))
    return np.asarray((rows[:, None] * grid.columns + columns).ravel(), np.int64)


def areas_within(shapes: Any, tissue: Any) -> Float64:
    """N: the area of each shape within the polygons, which do not overlap."""
    out = np.zeros(len(shapes))
    if not len(shapes) or not len(tissue):
        return out
    parts = np.array(pieces(tissue), object)
    tree = shapely.STRtree(parts)
    shapely.prepare(parts)
    for start in range(0, len(shapes), _AT_ONCE):
        chunk = np.asarray(shapes[start : start + _AT_ONCE], object)
        shape, part = tree.query(chunk)
        whole = shapely.contains_properly(parts[part], chunk[shape])
        area = np.zeros(len(shape))
        area[whole] = shapely.area(chunk[shape[whole]])
        crossing = ~whole
        area[crossing] = shapely.area(shapely.intersection(parts[part[crossing]], chunk[shape[crossing]]))
        out[start : start + len(chunk)] = np.bincount(shape, weights=area, minlength=len(chunk))
    return out


def figures(counts: Int64, classes: Sequence[str], usable_mm2: float) -> Row:
    """The figures of one place. `counts`: nuclei of each class and, where DAB counts, those with a density and the
    positive ones."""
    total = int(counts[0].sum())
    row: Row = {"nuclei": total, "per_mm2": _ratio(total, usable_mm2)}
    for name, number in zip(classes, counts[0].tolist(), strict=True):
        row |= {f"count_{name}": number, f"per_mm2_{name}": _ratio(number, usable_mm2)}
        row[f"share_{name}"] = _ratio(number, total)
    if len(counts) > 1:
        known, above = counts[1:].tolist()
        row |= {"positive": sum(above), "positive_share": _ratio(sum(above), sum(known))}
        for name, positive, measured in zip(classes, above, known, strict=True):
            row |= {f"positive_{name}": positive, f"positive_share_{name}": _ratio(positive, measured)}
    return row


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
