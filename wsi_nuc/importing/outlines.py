"""Valid outlines of one ring inside the slide, from any geometry that a file holds. Every change is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.importing.record import UNCLASSIFIED, Cells
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings, largest_polygons
from wsi_nuc.run.level0 import inside_and_valid, rounded
from wsi_nuc.types import Bool, Float32, Int64, SlideInfo

LARGEST_UM = 200.0
NO_OUTLINE, NO_AREA = "without an outline", "without an area"
TOO_LARGE, OFF_SLIDE = f"larger than {LARGEST_UM:g} um", "off the slide"


@dataclass(frozen=True, slots=True)
class Outlines(Rings):
    """Outlines in level-0 pixels, with class and score."""

    class_id: Int64
    """N: index into the class names so far."""
    score: Float32
    """N: 0 to 1."""


class Mender:
    """Turns batches of cells into outlines. `scale`: level-0 pixels per pixel of the file."""

    def __init__(self, info: SlideInfo, mpp: float, scale: float) -> None:
        self._info, self._scale, self._largest_px = info, scale, LARGEST_UM / mpp
        self.names: dict[str, int] = {}
        """The index of each class, in the order in which the classes came."""
        self.repaired: Counter[str] = Counter()
        """Mended cells, by what was wrong with them."""
        self.dropped: Counter[str] = Counter()
        """Cells that were left out, by what was wrong with them."""
        self.kept = 0
        """How many cells were not left out."""

    def mend(self, cells: Cells) -> Outlines:
        shapes, rows = self._sound(np.array(cells.geometry, dtype=object))
        ids = np.array([self.names.setdefault(name or UNCLASSIFIED, len(self.names)) for name in cells.names])
        score = np.asarray(cells.score, np.float32)[rows]
        table = _table(shapes, ids[rows].astype(np.int64), score)
        table, kept, changed = inside_and_valid(table, self._info)
        self._count(self.repaired, "at the edge of the slide or by rounding", changed - int(np.sum(~kept)))
        self._count(self.dropped, OFF_SLIDE, int(np.sum(~kept)))
        self.kept += len(table)
        return Outlines(table.xy, table.offsets, table.tile, table.score)

    def _sound(self, shapes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Int64]:
        """Valid polygons without holes, and the positions of their cells."""
        rows = self._without(np.arange(len(shapes)), shapely.is_missing(shapes), NO_OUTLINE)
        shapes = shapes[rows]
        if self._scale != 1.0:
            shapes = shapely.transform(shapes, lambda xy: xy * self._scale)
        invalid = ~shapely.is_valid(shapes)
        shapes[invalid] = shapely.make_valid(shapes[invalid])
        several = shapely.get_type_id(shapes) != shapely.GeometryType.POLYGON
        shapes[several] = largest_polygons(shapes[several])
        empty = shapely.is_missing(shapes) | (shapely.area(shapes) <= 0) | shapely.is_empty(shapes)
        left = self._without(np.arange(len(shapes)), empty, NO_AREA)
        self._count(self.repaired, "crossed themselves", int(np.sum(invalid & ~empty)))
        self._count(self.repaired, "in several parts", int(np.sum(several & ~invalid & ~empty)))
        rows, shapes = rows[left], shapes[left]
        bounds = shapely.bounds(shapes).reshape(-1, 4)
        large = (bounds[:, 2:] - bounds[:, :2]).max(axis=1, initial=0) > self._largest_px
        left = self._without(np.arange(len(shapes)), large, TOO_LARGE)
        rows, shapes = rows[left], shapes[left]
        self._count(self.repaired, "with holes", int(np.sum(shapely.get_num_interior_rings(shapes) > 0)))
        return shapes, rows

    def _without(self, rows: Int64, bad: Bool, why: str) -> Int64:
        self._count(self.dropped, why, int(bad.sum()))
        return rows[~bad]

    @staticmethod
    def _count(counter: Counter[str], why: str, number: int) -> None:
        if number:
            counter[why] += number


def _table(shapes: npt.NDArray[Any], class_id: Int64, score: Float32) -> NucleiTable:
    """The outer rings as a table. Its column `tile` carries the class; the columns without a source are blank."""
    rings = Rings.of_polygons(shapes)
    blank, count = np.full(len(shapes), np.nan, np.float32), len(shapes)
    return NucleiTable(
        xy=rounded(rings.xy),
        offsets=rings.offsets,
        prompt_xy=np.zeros((count, 2)),
        score=score,
        prompt_score=score,
        predicted_iou=blank,
        class_probs=np.zeros((count, 1), np.float32),
        tile=class_id,
    )
