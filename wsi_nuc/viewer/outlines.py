"""Nuclei of a cell of the slide as bytes: few numbers per nucleus, and the vertices of its outline."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsi_nuc.rings import Rings, offsets_of
from wsi_nuc.store.reading import NucleiFile
from wsi_nuc.viewer.columns import BASIC, Columns

# Of decoded outlines that stay in memory, in single precision.
MOST_BYTES = 96 * 2**20
# Points come for squares of this many cells on a side.
POINT_CELLS = 4


class Outlines:
    """The outlines of a store. Decoded row groups stay as long as there is room."""

    def __init__(self, file: NucleiFile) -> None:
        self._file, self._lock = file, threading.Lock()
        self._groups: OrderedDict[int, Rings] = OrderedDict()
        self._bytes = 0

    def of(self, rows: npt.NDArray[np.int32]) -> Rings:
        """The outlines of some nuclei, given in ascending order."""
        group_of = np.searchsorted(self._file.starts, rows, side="right") - 1
        parts = []
        for group in np.unique(group_of).tolist():
            inside = rows[group_of == group] - self._file.starts[group]
            parts.append(self.group(group).select(inside))
        return Rings.concat(parts) if parts else Rings(np.zeros((0, 2), np.float32), offsets_of([]))

    def group(self, group: int) -> Rings:
        with self._lock:
            if group in self._groups:
                self._groups.move_to_end(group)
                return self._groups[group]
            rings = self._file.rings(group)
            kept = Rings(rings.xy.astype(np.float32), rings.offsets)  # type: ignore[arg-type]
            self._groups[group] = kept
            self._bytes += kept.xy.nbytes + kept.offsets.nbytes
            while self._bytes > MOST_BYTES and len(self._groups) > 1:
                _, old = self._groups.popitem(last=False)
                self._bytes -= old.xy.nbytes + old.offsets.nbytes
            return kept


def points(columns: Columns, x: int, y: int, values: Sequence[str]) -> bytes:
    """The nuclei of a square of `POINT_CELLS` cells on a side, without their outlines."""
    rows = columns.cells.nuclei(x * POINT_CELLS, y * POINT_CELLS, POINT_CELLS)
    return _head(columns, rows, 0, (x * POINT_CELLS, y * POINT_CELLS), values)


def outlined(columns: Columns, outlines: Outlines, x: int, y: int, values: Sequence[str]) -> bytes:
    """The nuclei of a cell with their outlines: after what `points` gives, the first vertex of each ring (N + 1 x
    uint32; rings are closed) and the vertices (M x 2 x float32), relative to the corner of the cell."""
    rows = columns.cells.nuclei(x, y)
    closed = outlines.of(rows).closed()
    corner = np.array([x, y], np.float32) * columns.cells.edge_l0
    xy = closed.xy.astype(np.float32, copy=False) - corner
    head = _head(columns, rows, len(xy), (x, y), values)
    return head + closed.offsets.astype("<u4").tobytes() + np.ascontiguousarray(xy, "<f4").tobytes()


def _head(
    columns: Columns, rows: npt.NDArray[np.int32], vertices: int, cell: tuple[int, int], values: Sequence[str]
) -> bytes:
    """Counts (2 x uint32), then columns of N: row (uint32), x and y from the corner of the cell, score, area and
    other values (float32), class (uint32)."""
    edge = columns.cells.edge_l0
    parts: list[npt.NDArray[np.generic]] = [np.array([len(rows), vertices], "<u4"), rows.astype("<u4")]
    parts += [(columns.xy[axis, rows] - np.float32(cell[axis] * edge)).astype("<f4") for axis in (0, 1)]
    parts += [columns.column(name)[rows].astype("<f4") for name in (*BASIC, *values)]
    parts.append(columns.class_id[rows].astype("<u4"))
    return b"".join(part.tobytes() for part in parts)
