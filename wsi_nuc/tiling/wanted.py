"""Which tiles of a grid an area asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from wsi_nuc.tiling.grid import TileGrid
from wsi_nuc.types import Bool


def tiles_in(area: Any, grid: TileGrid) -> Bool:
    """rows x cols: the tiles whose core meets the area. Cost follows the outline, not the surface.

    Blocks of tiles are tested, from the whole grid down: inside, all their tiles are taken; apart, none;
    otherwise the block is quartered.
    """
    planned = np.zeros((grid.rows, grid.cols), np.bool_)
    shapely.prepare(area)
    edge = 1 << max(grid.rows - 1, grid.cols - 1, 1).bit_length()
    blocks = np.zeros((1, 2), np.int64)
    while len(blocks) and not area.is_empty:
        boxes = _block_boxes_l0(blocks, edge, grid)
        meets = shapely.intersects(area, boxes)
        blocks, boxes = blocks[meets], boxes[meets]
        full = shapely.covers(area, boxes) if edge > 1 else np.ones(len(blocks), np.bool_)
        for row, col in blocks[full]:
            planned[row : row + edge, col : col + edge] = True
        edge = max(1, edge // 2)
        quarters = blocks[~full][:, None] + edge * np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        blocks = quarters.reshape(-1, 2)
        blocks = blocks[(blocks[:, 0] < grid.rows) & (blocks[:, 1] < grid.cols)]
    return planned


def _block_boxes_l0(blocks: Any, edge: int, grid: TileGrid) -> Any:
    low = blocks[:, ::-1] * grid.core_px
    high = np.minimum(low + edge * grid.core_px, [grid.width_grid, grid.height_grid])
    return shapely.box(*(np.hstack([low, high]) * grid.l0_per_grid).T)
