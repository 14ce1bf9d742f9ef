"""The global tile grid and its regions: pure integer arithmetic, no pixels and no geometry.

A tile has a fixed place and size that depend on the slide and the model only. A region is a square block of
tiles that one task works on, so what is computed for a tile cannot depend on how tiles are grouped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_nuc.types import Bool, Box, Float64, Int64, Tile


@dataclass(frozen=True, slots=True)
class Region:
    """The planned `tiles` (global indices, ascending) of one block; both boxes are in grid pixels.

    `core_box` bounds the cores of the planned tiles; `read_box` bounds what they read.
    """

    index: int
    tiles: tuple[int, ...]
    core_box: Box
    read_box: Box


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Cores partition ``[0, width_grid) x [0, height_grid)``: those at the right and bottom edge are clipped.

    Read boxes are never clipped: all have `read_px` edges, so that every batch has one shape.
    """

    width_grid: int
    height_grid: int
    core_px: int
    halo_px: int
    l0_per_grid: float

    @property
    def cols(self) -> int:
        return -(-self.width_grid // self.core_px)

    @property
    def rows(self) -> int:
        return -(-self.height_grid // self.core_px)

    @property
    def tiles(self) -> int:
        return self.rows * self.cols

    @property
    def read_px(self) -> int:
        return self.core_px + 2 * self.halo_px

    @property
    def box_grid(self) -> Box:
        return Box(0, 0, self.width_grid, self.height_grid)

    def tile(self, index: int) -> Tile:
        """The tile of a global index; IndexError off the grid."""
        if not 0 <= index < self.tiles:
            raise IndexError(f"tile {index} is not on a grid of {self.tiles} tiles")
        full = self._block(index, self.cols, self.core_px)
        return Tile(index, full.intersect(self.box_grid), full.grow(self.halo_px))

    def tile_at(self, xy_grid: npt.NDArray[np.floating]) -> Int64:
        """The tile whose core holds each point (N x 2); -1 off the grid."""
        col, row = np.floor(np.asarray(xy_grid, np.float64) / self.core_px).astype(np.int64).T
        x, y = np.asarray(xy_grid).T
        on_grid = (x >= 0) & (y >= 0) & (x < self.width_grid) & (y < self.height_grid)
        return np.where(on_grid, row * self.cols + col, -1)

    def core_boxes_l0(self, indices: npt.NDArray[np.integer]) -> Float64:
        """N x 4: x0, y0, x1, y1 of the cores, in level-0 pixels."""
        row, col = np.divmod(np.asarray(indices, np.int64), self.cols)
        low = np.stack([col, row], axis=1) * self.core_px
        high = np.minimum(low + self.core_px, [self.width_grid, self.height_grid])
        return np.hstack([low, high]) * self.l0_per_grid

    def regions(self, tiles_per_region: int, planned: Bool) -> Iterator[Region]:
        """Blocks of `tiles_per_region` x `tiles_per_region` tiles, row by row, that hold a planned tile.

        `planned`: rows x cols. The index of a region is its place among all blocks, planned or not.
        """
        row, col = np.nonzero(planned)
        per_row = -(-self.cols // tiles_per_region)
        block = (row // tiles_per_region) * per_row + col // tiles_per_region
        order = np.argsort(block, kind="stable")
        names, starts = np.unique(block[order], return_index=True)
        tiles = np.split((row * self.cols + col)[order], starts[1:])
        for name, members in zip(names, tiles, strict=False):
            yield self.region(int(name), members)

    def region(self, index: int, tiles: Int64) -> Region:
        """Of these tiles, ascending."""
        row, col = np.divmod(tiles, self.cols)
        x0, y0 = int(col.min()) * self.core_px, int(row.min()) * self.core_px
        full = Box(x0, y0, (int(col.max()) + 1) * self.core_px, (int(row.max()) + 1) * self.core_px)
        members = tuple(int(tile) for tile in tiles)
        return Region(index, members, full.intersect(self.box_grid), full.grow(self.halo_px))

    @staticmethod
    def _block(index: int, per_row: int, edge: int) -> Box:
        row, col = divmod(index, per_row)
        return Box(col * edge, row * edge, (col + 1) * edge, (row + 1) * edge)
