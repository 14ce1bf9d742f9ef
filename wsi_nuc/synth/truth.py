"""The truth: the disjoint outlines that are drawn, from overlapping candidates, written as GeoParquet.

The choice is local: a candidate depends on the candidates that touch it, and on those that touch these. So a box
that is grown by `HALO_UM` decides every nucleus whose centre lies in it, in the same way in every tile. The file
has one row per nucleus, and grows with the slide.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.rings import largest_polygons
from wsi_nuc.synth.anatomy import Anatomy, BoxUm
from wsi_nuc.synth.nuclei import REACH_UM, Candidates, candidates
from wsi_nuc.synth.spec import CLASSES
from wsi_nuc.types import Bool, Float64, Int64

HALO_UM = 4 * REACH_UM
# A nucleus with a smaller visible share is left out of the image and of the truth.
_LEAST_VISIBLE = 0.45
_GRID_PER_PX = 64

Polygons = npt.NDArray[Any]
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        # A null crs says that the coordinates are not on the globe: level-0 px, y down.
        "geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None},
    },
}


@dataclass(frozen=True, slots=True)
class Visible:
    """N nuclei as they are drawn."""

    polygon: Polygons
    """N: disjoint shapely polygons in level-0 pixels."""
    origin: Candidates
    """The candidates that they come from."""

    def __len__(self) -> int:
        return len(self.polygon)

    def select(self, rows: Bool | Int64) -> Visible:
        return Visible(self.polygon[rows], self.origin.select(rows))


def visible_nuclei(anatomy: Anatomy, box_um: BoxUm) -> Visible:
    """Every drawn nucleus whose candidate has its centre in the box."""
    x0, y0, x1, y1 = box_um
    origin = candidates(anatomy, (x0 - HALO_UM, y0 - HALO_UM, x1 + HALO_UM, y1 + HALO_UM))
    mpp = anatomy.spec.mpp
    polygon = shapely.polygons(np.round(origin.outlines_um() * (_GRID_PER_PX / mpp)) / _GRID_PER_PX)
    low, high = shapely.bounds(polygon).reshape(-1, 2, 2).swapaxes(0, 1)
    size_l0 = np.array([anatomy.spec.size, anatomy.spec.height_px])
    whole = (low >= 0).all(1) & (high <= size_l0).all(1) & shapely.is_valid(polygon)
    origin, polygon = origin.select(whole), polygon[whole]
    polygon, shown = _uncover(polygon, origin.lots[:, 3])
    x, y = origin.xy_um.T
    return Visible(polygon, origin).select(shown & (x >= x0) & (x < x1) & (y >= y0) & (y < y1))


def _uncover(polygon: Polygons, height: Float64) -> tuple[Polygons, Bool]:
    """The visible part of each polygon, with higher ones in front, and whether it is large enough."""
    area = shapely.area(polygon)
    below, above = shapely.STRtree(polygon).query(polygon, predicate="intersects")
    lower = height[below] < height[above]
    below, above = below[lower], above[lower]
    covered = np.bincount(
        below, shapely.area(shapely.intersection(polygon[below], polygon[above])), minlength=len(polygon)
    )
    # All candidates count, even dropped ones: otherwise, dropping one could change others across the whole slide.
    shown = covered <= (1 - _LEAST_VISIBLE) * area
    cutting = shown[below] & shown[above]
    rest = _cut(polygon, below[cutting], above[cutting])
    holes = shapely.get_num_interior_rings(rest) > 0
    return rest, shown & (shapely.area(rest) >= _LEAST_VISIBLE * area) & ~holes & shapely.is_valid(rest)


def _cut(polygon: Polygons, below: Int64, above: Int64) -> Polygons:
    """The largest part of each polygon that is left by the polygons above it, pair by pair."""
    result = polygon.copy()
    order = np.lexsort((above, below))
    below, above = below[order], above[order]
    # The n-th polygon in front of every polygon at once, so that the loop is as long as the deepest pile.
    turn = np.arange(len(below)) - np.searchsorted(below, below)
    for n in range(int(turn.max(initial=-1)) + 1):
        now = turn == n
        result[below[now]] = shapely.difference(result[below[now]], polygon[above[now]])
    result = largest_polygons(result)
    result[shapely.is_missing(result)] = shapely.Polygon()
    return result


class TruthWriter:
    """Writes the columns id (int64, from 0), class and geometry (WKB, in level-0 pixels)."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema(
            [("id", pa.int64()), ("class", pa.string()), ("geometry", pa.binary())],
            metadata={"geo": json.dumps(_GEO)},
        )
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._wkb: list[bytes] = []
        self._names: list[str] = []
        self.counts: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))

    @property
    def nuclei(self) -> int:
        return sum(self.counts.values())

    def add(self, polygon: npt.NDArray[Any], class_id: Int64) -> None:
        # Turned into bytes at once: shapely's objects lie in the heaps of the drawing threads and keep them large.
        self._wkb += shapely.to_wkb(polygon).tolist()
        self._names += [CLASSES[i] for i in class_id]
        if len(self._names) >= 10_000:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._names:
            ids = np.arange(self.nuclei, self.nuclei + len(self._names))
            self._writer.write_table(pa.table([ids, self._names, self._wkb], schema=self._schema))
            self.counts.update(self._names)
            self._wkb, self._names = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
