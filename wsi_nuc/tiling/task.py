"""What a worker is told about one region: the tiles, where to read them, and where nuclei are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wsi_nuc.tiling.grid import Region, TileGrid
from wsi_nuc.tiling.scale import Scale
from wsi_nuc.tissue.outline import inside
from wsi_nuc.types import Bool, Box, Float64, Tile


@dataclass(frozen=True, slots=True)
class RegionTask:
    """One region of a plan. It carries only its own part of the area: a few kilobytes, however large the slide.

    `area_pieces`: shapely polygons in level-0 pixels that reach into the region's read box.
    """

    region: Region
    grid: TileGrid
    scale: Scale
    area_pieces: tuple[Any, ...]

    @property
    def index(self) -> int:
        return self.region.index

    @property
    def l0_per_grid(self) -> float:
        return self.grid.l0_per_grid

    def tiles(self) -> Iterator[Tile]:
        return map(self.grid.tile, self.region.tiles)

    def inside(self, xy_l0: Float64) -> Bool:
        """Which points (N x 2, within the read box) lie in the area, its border included."""
        return inside(self.area_pieces, xy_l0)

    def level_box(self, box_grid: Box) -> Box:
        """The pixels of the level that the resampled pixels of `box_grid` depend on."""
        return self.scale.level_box(box_grid)
