"""Pixels of a region's tiles: the file is decoded once, and what a tile gets depends on that tile only.

A tile is cut from whole pixels of the level and resampled relative to its own first pixel. It therefore has
the same bytes whichever region it is read with, or alone, as it is after a damaged read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from wsi_nuc.errors import DamagedPixels
from wsi_nuc.resampling import resized
from wsi_nuc.slides.pixels import read_around
from wsi_nuc.tiling.gaps import Gap, gaps_in, places_in
from wsi_nuc.tiling.plan import RegionTask
from wsi_nuc.tiling.scale import Scale
from wsi_nuc.types import Box, PixelBlock, SlideSource, Tile, UInt8

Status = Literal["ok", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class TilePixels:
    """What a tile reads of the slide."""

    tile: Tile
    rgb: UInt8 | None
    """read_px x read_px x 3, white outside the slide and in gaps. Only to be read: it may be a view. None where
    nothing is left of the part of the core that lies in the area."""
    status: Status = "ok"
    """"ok": the model can see the tile, though parts of it may be damaged. "missing": the file holds no data for a
    part of the core that lies in the area. "failed": nothing of that part is left, and some of it is damaged."""
    cause: str = ""
    """Why it is not "ok"."""
    gaps: tuple[Gap, ...] = ()
    """In all that the tile reads."""
    places: tuple[Gap, ...] = ()
    """The parts of the gaps in the core where that meets the area."""


def read_region(source: SlideSource, task: RegionTask) -> Iterator[TilePixels]:
    """Every tile of the task, in order. Errors other than DamagedPixels are the slide's and are raised."""
    box_level = task.level_box(task.region.read_box)
    try:
        block = source.read(task.scale.level, box_level)
    except DamagedPixels:
        block = None
    for tile in task.tiles():
        if block is not None:
            yield _from_block(block, box_level, task, tile)
        else:
            # Each tile for itself: what is told of it must not depend on what is read beside it.
            tile_level = task.level_box(tile.read_box)
            yield _from_block(read_around(source, task.scale.level, tile_level), tile_level, task, tile)


def _from_block(block: PixelBlock, block_level: Box, task: RegionTask, tile: Tile) -> TilePixels:
    tile_level = task.level_box(tile.read_box)
    gaps = gaps_in(block, block_level, tile_level, task.scale.level_downsample)
    places, share = places_in(task, tile, gaps)
    damaged = [place for place in places if place.kind == "damaged"]
    if share == 1:
        if damaged:
            return TilePixels(tile, None, "failed", damaged[0].cause)
        return TilePixels(tile, None, "missing", places[0].cause, gaps, places)
    rgb = resample(_crop(block.rgb, block_level, tile_level), tile_level, task.scale, tile.read_box)
    status: Status = "missing" if len(damaged) < len(places) else "ok"
    return TilePixels(tile, rgb, status, gaps=gaps, places=places)


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
