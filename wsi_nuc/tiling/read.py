"""Pixels of a region's tiles: the file is decoded once, and what a tile gets depends on that tile only.

A tile is cut from whole pixels of the level and resampled relative to its own first pixel. It therefore has
the same bytes whichever region it is read with, or alone, as it is after a damaged read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wsi_nuc.errors import DamagedPixels
from wsi_nuc.slides.base import SlideSource
from wsi_nuc.tiling.resampling import resized
from wsi_nuc.tiling.scale import Scale
from wsi_nuc.tiling.task import RegionTask
from wsi_nuc.types import Bool, Box, PixelBlock, Tile, UInt8

Status = Literal["ok", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class TilePixels:
    """`rgb`: uint8 read_px x read_px x 3, white outside the slide; read-only use, it may be a view.

    `status` is "missing" where the file holds no data for a part of the core that lies in the area: the rest
    is still in `rgb`, which is None only if all of that part is missing. "failed": no pixels, `cause` says why.
    """

    tile: Tile
    rgb: UInt8 | None
    status: Status = "ok"
    cause: str = ""


def read_region(source: SlideSource, task: RegionTask) -> Iterator[TilePixels]:
    """Every tile of the task, in order. Errors other than DamagedPixels are the slide's and are raised."""
    box_level = task.level_box(task.region.read_box)
    try:
        block = source.read(task.scale.level, box_level)
    except DamagedPixels:
        for tile in task.tiles():
            yield _read_alone(source, task, tile)
        return
    for tile in task.tiles():
        yield _from_block(block, box_level, task, tile)


def _read_alone(source: SlideSource, task: RegionTask, tile: Tile) -> TilePixels:
    box_level = task.level_box(tile.read_box)
    try:
        block = source.read(task.scale.level, box_level)
    except DamagedPixels as error:
        return TilePixels(tile, None, "failed", error.cause)
    return _from_block(block, box_level, task, tile)


def _from_block(block: PixelBlock, block_level: Box, task: RegionTask, tile: Tile) -> TilePixels:
    tile_level = task.level_box(tile.read_box)
    native = _crop(block.rgb, block_level, tile_level)
    rgb = resample(native, tile_level, task.scale, tile.read_box)
    share = _missing_share(block, block_level, task, tile)
    if share == 0:
        return TilePixels(tile, rgb)
    cause = f"the file holds no data for {share:.0%} of the tile's area"
    return TilePixels(tile, rgb if share < 1 else None, "missing", cause)


def _crop(pixels: UInt8, frame: Box, box: Box) -> UInt8:
    return pixels[box.y0 - frame.y0 : box.y1 - frame.y0, box.x0 - frame.x0 : box.x1 - frame.x0]


def resample(native: UInt8, native_level: Box, scale: Scale, box_grid: Box) -> UInt8:
    """Pixels of the level to those of `box_grid`, unless they are the same."""
    if scale.native:
        return native
    ratio = scale.level_px_per_grid
    # Relative to the crop the numbers stay small: Pillow keeps them in single precision.
    x0, y0 = box_grid.x0 * ratio - native_level.x0, box_grid.y0 * ratio - native_level.y0
    corners = (x0, y0, x0 + box_grid.width * ratio, y0 + box_grid.height * ratio)
    return resized(native, (box_grid.width, box_grid.height), corners)


def _missing_share(block: PixelBlock, block_level: Box, task: RegionTask, tile: Tile) -> float:
    """Share of the tile's core within the area that the file holds no data for."""
    if block.missing is None:
        return 0.0
    core_level = _inner_pixels(tile.core_box, task.scale.level_px_per_grid)
    missing: Bool = block.missing[
        core_level.y0 - block_level.y0 : core_level.y1 - block_level.y0,
        core_level.x0 - block_level.x0 : core_level.x1 - block_level.x0,
    ]
    if not missing.any():
        return 0.0
    y, x = np.indices(missing.shape).reshape(2, -1)
    centres_level = np.stack([x + core_level.x0 + 0.5, y + core_level.y0 + 0.5], axis=1)
    kept = task.inside((centres_level * task.scale.level_downsample).astype(np.float64))
    return float(missing.ravel()[kept].mean()) if kept.any() else 0.0


def _inner_pixels(box_grid: Box, ratio: float) -> Box:
    """Pixels of the level whose centres lie in the box: neighbouring cores share none."""
    x0, y0, x1, y1 = (round(edge * ratio) for edge in (box_grid.x0, box_grid.y0, box_grid.x1, box_grid.y1))
    return Box(x0, y0, max(x0 + 1, x1), max(y0 + 1, y1))
