"""The columns of all nuclei of a store in memory: what passes a filter, how dense it is, and how it is spread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.rings import offsets_of
from wsi_nuc.safezarr import open_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import layout
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.store.tables import to_numpy
from wsi_nuc.store.zarrfile import CHUNK_ROWS
from wsi_nuc.types import Bool, Float32, Int64

# Edge of a cell, for which a page asks in one request: this many microns, as a power of two of pixels.
CELL_UM = 250.0
# The density map has at most this many bins along its longer side, and none smaller than this.
MOST_BINS = 768
LEAST_BIN_UM = 6.0
BARS = 40
# Columns beside class, score and area that stay in memory, the least recently used go first.
MOST_COLUMNS = 8
AT_ONCE = 2**20
BASIC = ("score", "area_um2")
# Of the columns beside the outlines, those that a picture can be coloured by.
NUMBERS = (*BASIC, "prompt_score", "predicted_iou")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which nuclei count."""

    classes: tuple[int, ...] | None = None
    """The numbers of the classes; None for all."""
    ranges: tuple[tuple[str, float, float], ...] = ()
    """Column, least and greatest value; nuclei without a value do not pass."""
    box_l0: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 of the place where their centres are."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Squares of the slide, row by row, and the rows of the nuclei whose centres lie in each."""

    edge_l0: int
    columns: int
    rows: int
    order: npt.NDArray[np.int32]
    """N: the rows of all nuclei, cell by cell."""
    starts: Int64
    """Cells + 1: where each begins in `order`."""

    def nuclei(self, x: int, y: int, cells: int = 1) -> npt.NDArray[np.int32]:
        """The rows of the nuclei of a square of `cells` x `cells` cells, with the first cell at column x, row y;
        ascending."""
        runs = []
        for row in range(y, min(y + cells, self.rows)):
            first, last = row * self.columns + x, row * self.columns + min(x + cells, self.columns)
            runs.append(self.order[self.starts[first] : self.starts[last]])
        return np.sort(np.concatenate(runs)) if runs else self.order[:0]


class Columns:
    """Centre, class, score and area of all nuclei; other columns are read when they are asked for."""

    def __init__(self, reader: NucleiReader, classes: int, size_l0: tuple[int, int], mpp: float) -> None:
        self._reader, self.classes, self.size_l0, self._mpp = reader, classes, size_l0, mpp
        self._lock = threading.Lock()
        self._more: OrderedDict[str, Float32] = OrderedDict()
        self.names = column_names(reader)
        count = reader.rows
        self.xy = np.empty((2, count), np.float32)
        self.class_id = np.empty(count, np.uint8 if classes <= 255 else np.uint16)
        self._basic = {name: np.empty(count, np.float32) for name in BASIC}
        for group in range(reader.groups):
            self._read(group)
        self.cells = self._in_cells(*cell_grid(size_l0, mpp))
        self._all: list[int] = []
        self._extents: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self.class_id)

    def _read(self, group: int) -> None:
        start, stop = self._reader.starts[group : group + 2].tolist()
        table = self._reader.table(group, ["x", "y", "class_id", *BASIC])
        x, y, class_id, *basic = (to_numpy(table.column(i).combine_chunks()) for i in range(5))
        self.xy[0, start:stop], self.xy[1, start:stop], self.class_id[start:stop] = x, y, class_id
        for name, values in zip(BASIC, basic, strict=True):
            self._basic[name][start:stop] = values

    def _in_cells(self, edge: int, columns: int, rows: int) -> Cells:
        cell = np.empty(len(self), np.int32)
        for part in _parts(len(self)):
            x, y = (np.clip(self.xy[axis, part] // edge, 0, most - 1) for axis, most in ((0, columns), (1, rows)))
            cell[part] = y.astype(np.int32) * columns + x.astype(np.int32)
        order = np.argsort(cell, kind="stable").astype(np.int32)
        return Cells(edge, columns, rows, order, offsets_of(np.bincount(cell, minlength=columns * rows)))

    def column(self, name: str) -> Float32:
        """N: the values of a column; NaN where a nucleus has none."""
        if name in self._basic:
            return self._basic[name]
        if name not in self.names:
            raise UsageError(name[:80], "is not a column of this store")
        with self._lock:
            if name not in self._more:
                self._more[name] = self._read_column(name)
                while len(self._more) > MOST_COLUMNS:
                    self._more.popitem(last=False)
            self._more.move_to_end(name)
            return self._more[name]

    def _read_column(self, name: str) -> Float32:
        if name in self._reader.measured_columns:
            return self._read_measured(self._reader.measured_columns.index(name))
        out = np.empty(len(self), np.float32)
        for group in range(self._reader.groups):
            start, stop = self._reader.starts[group : group + 2].tolist()
            values = self._reader.table(group, [name]).column(0).combine_chunks().fill_null(float("nan"))
            out[start:stop] = to_numpy(values)
        return out

    def _read_measured(self, at: int) -> Float32:
        path, out = contents(self._reader.store) / layout.NUCLEI_TABLE / "X", np.empty(len(self), np.float32)
        try:
            array = open_array(path)
            for start in range(0, len(self), CHUNK_ROWS):
                out[start : start + CHUNK_ROWS] = array[start : start + CHUNK_ROWS, at]
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            cause = f"cannot be read ({error})"
            raise StorageError(path, cause, "`wsi-nuc verify` says what is wrong") from None
        return out

    def passing(self, wanted: Wanted, part: slice) -> Bool:
        """Which of a stretch of rows pass."""
        kept: Bool = np.ones(len(self.class_id[part]), np.bool_)
        if wanted.box_l0 is not None:
            x0, y0, x1, y1 = wanted.box_l0
            x, y = self.xy[:, part]
            kept &= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        if wanted.classes is not None:
            allowed = np.zeros(max(self.classes, 1), np.bool_)
            allowed[[number for number in wanted.classes if 0 <= number < self.classes]] = True
            kept &= allowed[self.class_id[part]]
        for name, least, most in wanted.ranges:
            values = self.column(name)[part]
            kept &= (values >= least) & (values <= most)
        return kept

    def density(self, wanted: Wanted, value: str = "") -> Density:
        """How many of the wanted nuclei lie in each bin, and of which class most are, or their mean `value`."""
        bin_l0 = max(LEAST_BIN_UM / self._mpp, max(self.size_l0) / MOST_BINS)
        columns, rows = (max(1, int(np.ceil(side / bin_l0))) for side in self.size_l0)
        kinds = 1 if value else self.classes
        sums = np.zeros(columns * rows * (1 if value else kinds), np.float32)
        counts = np.zeros(columns * rows, np.int64) if value else None
        for part in _parts(len(self)):
            kept = np.flatnonzero(self.passing(wanted, part))
            x, y = (self.xy[axis, part][kept] / np.float32(bin_l0) for axis in (0, 1))
            place: npt.NDArray[Any] = np.clip(y.astype(np.int32), 0, rows - 1) * columns + np.clip(
                x.astype(np.int32), 0, columns - 1
            )
            if counts is None:
                place = place * kinds + self.class_id[part][kept]
                sums += np.bincount(place, minlength=len(sums))
                continue
            values = self.column(value)[part][kept]
            known = np.flatnonzero(np.isfinite(values))
            counts += np.bincount(place[known], minlength=len(counts))
            sums += np.bincount(place[known], values[known], minlength=len(counts))
        shape = (rows, columns)
        if counts is not None:
            means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
            return Density(bin_l0, counts.reshape(shape), means.reshape(shape))
        by_class = sums.reshape(-1, kinds)
        return Density(
            bin_l0,
            by_class.sum(axis=1).astype(np.int64).reshape(shape),
            by_class.argmax(axis=1).astype(np.float32).reshape(shape),
        )

    def counts(self, wanted: Wanted) -> list[int]:
        """How many of each class pass."""
        if wanted == Wanted():
            self._all = self._all or self._count(wanted)
            return self._all
        return self._count(wanted)

    def _count(self, wanted: Wanted) -> list[int]:
        total = np.zeros(self.classes, np.int64)
        for part in _parts(len(self)):
            total += np.bincount(self.class_id[part][self.passing(wanted, part)], minlength=self.classes)
        return [int(count) for count in total]

    def histogram(self, name: str, wanted: Wanted) -> dict[str, Any]:
        """How the values of a column are spread over `BARS` bars from the lowest to the highest of all nuclei; the
        range on this column itself does not count, so that a histogram shows what it cuts off."""
        others = tuple(entry for entry in wanted.ranges if entry[0] != name)
        wanted = Wanted(wanted.classes, others, wanted.box_l0)
        low, high = self.extent(name)
        bars = np.zeros(BARS, np.int64)
        for part in _parts(len(self)):
            values = self.column(name)[part][self.passing(wanted, part)]
            bars += np.histogram(np.clip(values[np.isfinite(values)], low, high), BARS, (low, high))[0]
        return {"name": name, "low": low, "high": high, "bars": bars.tolist()}

    def extent(self, name: str) -> tuple[float, float]:
        """From where to where a column is drawn: all of its values but one in two hundred at either end."""
        if name not in self._extents:
            self._extents[name] = self._measured_extent(name)
        return self._extents[name]

    def _measured_extent(self, name: str) -> tuple[float, float]:
        values = self.column(name)
        values = values[:: max(1, len(values) // 200_000)]
        values = values[np.isfinite(values)]
        if not len(values):
            return 0.0, 1.0
        low, high = (float(edge) for edge in np.quantile(values, (0.005, 0.995)))
        if name in ("score", "prompt_score") or name.startswith("probability_"):
            low, high = 0.0, 1.0
        return (low, high) if low < high else (low - 0.5, high + 0.5)


@dataclass(frozen=True, slots=True)
class Density:
    """Bins of the whole slide."""

    bin_l0: float
    """Edge of a bin in level-0 pixels."""
    counts: Int64
    """H x W: nuclei in each bin."""
    values: Float32
    """H x W: the class that most of them have, or their mean value."""


def cell_grid(size_l0: tuple[int, int], mpp: float) -> tuple[int, int, int]:
    """Edge of the cells of a slide in level-0 pixels, and how many columns and rows of them there are."""
    edge = int(2 ** round(float(np.log2(max(CELL_UM / mpp, 64.0)))))
    columns, rows = (max(1, -(-side // edge)) for side in size_l0)
    return edge, columns, rows


def column_names(reader: NucleiReader) -> tuple[str, ...]:
    """The columns that a picture can be coloured by."""
    return (*(name for name in NUMBERS if name in reader.shape_columns), *reader.measured_columns)


def _parts(count: int) -> list[slice]:
    return [slice(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]


def asked(query: Mapping[str, str], names: Sequence[str]) -> Wanted:
    """The filter that a query states; UsageError for one that makes no sense."""
    classes = query.get("classes")
    pairs = [text.rpartition(":") for text in query.get("ranges", "").split(";") if text]
    if len(pairs) > 8:
        raise UsageError("ranges", "has more than eight entries")
    limits = []
    for name, _, text in pairs:
        least, most = numbers(text, 2)
        if name not in names:
            raise UsageError("ranges", "names a column that this store does not have")
        limits.append((name, least, most))
    box = query.get("box")
    return Wanted(
        None if classes is None else tuple(int(value) for value in numbers(classes)),
        tuple(limits),
        None if box is None else numbers(box, 4),  # type: ignore[arg-type]
    )


def numbers(text: str, count: int | None = None) -> tuple[float, ...]:
    """The finite numbers of a text with commas; UsageError where it is anything else."""
    try:
        values = tuple(float(part) for part in text.split(",") if part or count)
    except ValueError:
        raise UsageError(text[:40], "is not a list of numbers") from None
    if not np.isfinite(values).all() or len(values) > 1000 or (count is not None and len(values) != count):
        raise UsageError(text[:40], "is not a list of so many numbers")
    return values
