"""Label images as pyramids: pixels with the ids of nuclei, made shard by shard from polygons."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from wsi_nuc.rings import Labels
from wsi_nuc.store import layout
from wsi_nuc.store.nuclei_columns import Summary
from wsi_nuc.store.reading import NucleiFile, StoredRings, meet
from wsi_nuc.store.zarrfile import Chunks, ShardFile, ZarrFolder, chunk_file
from wsi_nuc.types import Box, Float64

SHARD_PX, CHUNK_PX, FACTOR, SMALLEST_PX = 4096, 512, 4, 1024
_GROUPS_HELD = 6


class RingGroups:
    """Rings in groups. A few groups are enough to hold, since rows are in spatial order."""

    def __init__(self, boxes_l0: Float64, load: Callable[[int], StoredRings]) -> None:
        """`boxes_l0`: G x 4, what each group covers. `load` reads a group."""
        self._boxes, self._load = boxes_l0, load
        self._held: OrderedDict[int, StoredRings] = OrderedDict()

    def _rings(self, group: int) -> StoredRings:
        if group not in self._held:
            self._held[group] = self._load(group)
            if len(self._held) > _GROUPS_HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(group)
        return self._held[group]

    def fill(self, box_l0: Box) -> Labels:
        """Labels of a box: the ids of the rings. A later row covers an earlier one."""
        out = np.zeros(box_l0.height * box_l0.width, np.int32)
        box = (box_l0.x0, box_l0.y0, box_l0.x1, box_l0.y1)
        for group in np.flatnonzero(meet(self._boxes, box)):
            rings = self._rings(int(group)).within(box)
            pixel, owner = rings.covered(box_l0)
            out[pixel] = rings.ids.astype(np.int32)[owner]
        return out.reshape(box_l0.height, box_l0.width)


class _Pyramid:
    """Goes over the shards depth first: a shard of a level is made from its children while they are in memory."""

    def __init__(
        self, folder: ZarrFolder, path: str, fill: Callable[[Box], Labels], width: int, height: int
    ) -> None:
        self._folder, self._path, self._fill = folder, path, fill
        self.shapes = [(height, width)]
        while max(self.shapes[-1]) > SMALLEST_PX:
            self.shapes.append((-(-self.shapes[-1][0] // FACTOR), -(-self.shapes[-1][1] // FACTOR)))

    def write(self) -> None:
        top = len(self.shapes) - 1
        for row in range(-(-self.shapes[top][0] // SHARD_PX)):
            for column in range(-(-self.shapes[top][1] // SHARD_PX)):
                self._shard(top, row, column)

    def _box(self, level: int, row: int, column: int) -> Box:
        height, width = self.shapes[level]
        y, x = row * SHARD_PX, column * SHARD_PX
        return Box(x, y, min(x + SHARD_PX, width), min(y + SHARD_PX, height))

    def _shard(self, level: int, row: int, column: int) -> Labels:
        box = self._box(level, row, column)
        if level == 0:
            labels = self._fill(box)
        else:
            labels = np.zeros((box.height, box.width), np.int32)
            for child_row in range(row * FACTOR, (row + 1) * FACTOR):
                for child_column in range(column * FACTOR, (column + 1) * FACTOR):
                    self._paste(labels, level, child_row, child_column)
        self._write(level, row, column, labels)
        return labels

    def _paste(self, labels: Labels, level: int, row: int, column: int) -> None:
        box = self._box(level - 1, row, column)
        if box.area:
            sampled = self._shard(level - 1, row, column)[::FACTOR, ::FACTOR]
            step = SHARD_PX // FACTOR
            y, x = row % FACTOR * step, column % FACTOR * step
            labels[y : y + sampled.shape[0], x : x + sampled.shape[1]] = sampled

    def _write(self, level: int, row: int, column: int, labels: Labels) -> None:
        per_edge = SHARD_PX // CHUNK_PX
        path = self._folder.root / self._path / f"s{level}" / chunk_file([row, column])
        shard = ShardFile(path, per_edge * per_edge)
        try:
            for y in range(0, SHARD_PX, CHUNK_PX):
                for x in range(0, SHARD_PX, CHUNK_PX):
                    part = labels[y : y + CHUNK_PX, x : x + CHUNK_PX]
                    chunk = np.zeros((CHUNK_PX, CHUNK_PX), np.int32)
                    chunk[: part.shape[0], : part.shape[1]] = part
                    shard.append(chunk)
            shard.close()
        finally:
            shard.abandon()


def write_pyramid(
    folder: ZarrFolder, path: str, fill: Callable[[Box], Labels], width_l0: int, height_l0: int
) -> list[float]:
    """Arrays s0, s1, ... below `path`; returns how many pixels of s0 each has per pixel. Holds one shard per
    level. A pixel of s1 is the first one of its block in s0."""
    pyramid = _Pyramid(folder, path, fill, width_l0, height_l0)
    pyramid.write()
    sample = np.zeros((0, 0), np.int32)
    shard, inner = (SHARD_PX, SHARD_PX), (CHUNK_PX, CHUNK_PX)
    for level, shape in enumerate(pyramid.shapes):
        folder.describe(f"{path}/s{level}", sample, shape, Chunks(shard, inner), names=list("yx"))
    return [float(FACTOR**level) for level in range(len(pyramid.shapes))]


def write_labels(folder: ZarrFolder, summary: Summary, width_l0: int, height_l0: int) -> None:
    """The label image of a store. Needs the finished nuclei."""
    with NucleiFile(folder.root.path) as file:
        groups = RingGroups(summary.group_boxes_l0, file.rings)
        factors = write_pyramid(folder, layout.NUCLEI_LABELS, groups.fill, width_l0, height_l0)
    layout.raster_group(folder, layout.NUCLEI_LABELS, "yx", factors, 1.0)
