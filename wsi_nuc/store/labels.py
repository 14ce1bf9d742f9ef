"""The optional label image: a pyramid of nucleus ids, made shard by shard from the polygons of the store."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from wsi_nuc.rings import Labels
from wsi_nuc.store import layout
from wsi_nuc.store.nuclei_columns import Summary
from wsi_nuc.store.reading import NucleiFile, StoredRings, meet
from wsi_nuc.store.zarrfile import Chunks, ShardFile, ZarrFolder, chunk_file
from wsi_nuc.types import Box

SHARD_PX, CHUNK_PX, FACTOR, SMALLEST_PX = 4096, 512, 4, 1024
_GROUPS_HELD = 6


class _RowGroups:
    """Rings of the Parquet file by row group. A few groups are enough to hold, since rows are in spatial order."""

    def __init__(self, folder: ZarrFolder, summary: Summary) -> None:
        self._boxes = summary.group_boxes_l0
        self._file = NucleiFile(folder.root.path)
        self._held: OrderedDict[int, StoredRings] = OrderedDict()

    def _rings(self, group: int) -> StoredRings:
        if group not in self._held:
            self._held[group] = self._file.rings(group)
            if len(self._held) > _GROUPS_HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(group)
        return self._held[group]

    def fill(self, box_l0: Box) -> Labels:
        """Labels of a box. The groups are in ascending order, so a higher id covers a lower one."""
        out = np.zeros((box_l0.height, box_l0.width), np.int32)
        box = (box_l0.x0, box_l0.y0, box_l0.x1, box_l0.y1)
        for group in np.flatnonzero(meet(self._boxes, box)):
            rings = self._rings(int(group)).within(box)
            filled = rings.fill(rings.ids, box_l0)
            np.copyto(out, filled, where=filled > 0)
        return out

    def close(self) -> None:
        self._file.close()


class _Pyramid:
    """Goes over the shards depth first: a shard of a level is made from its children while they are in memory."""

    def __init__(self, folder: ZarrFolder, groups: _RowGroups, width: int, height: int) -> None:
        self._folder, self._groups = folder, groups
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
            labels = self._groups.fill(box)
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
        path = self._folder.root / layout.NUCLEI_LABELS / f"s{level}" / chunk_file([row, column])
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


def write_labels(folder: ZarrFolder, summary: Summary, width_l0: int, height_l0: int) -> None:
    """Needs the finished nuclei. Holds one shard per level and a few row groups, whatever the slide's size."""
    groups = _RowGroups(folder, summary)
    pyramid = _Pyramid(folder, groups, width_l0, height_l0)
    try:
        pyramid.write()
    finally:
        groups.close()
    sample = np.zeros((0, 0), np.int32)
    shard, inner = (SHARD_PX, SHARD_PX), (CHUNK_PX, CHUNK_PX)
    for level, shape in enumerate(pyramid.shapes):
        folder.describe(f"{layout.NUCLEI_LABELS}/s{level}", sample, shape, Chunks(shard, inner), names=list("yx"))
    factors = [float(FACTOR**level) for level in range(len(pyramid.shapes))]
    layout.raster_group(folder, layout.NUCLEI_LABELS, "yx", factors, 1.0)
