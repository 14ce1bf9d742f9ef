"""The plan of one slide: which tiles an area asks for, and what a worker gets for each region of them.

It is arithmetic over the grid and the area, made before any work. It prints and serialises.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import shapely
from shapely.geometry import mapping, shape

from wsi_nuc.tiling.grid import Region, TileGrid
from wsi_nuc.tiling.scale import Scale, choose_scale, grid_size
from wsi_nuc.tissue.area import inside, pieces
from wsi_nuc.types import Bool, Box, Float64, SlideInfo, Tile

RGB_AND_MISSING_BYTES = 4
# Edge in pixels as read: more would only take memory.
LARGEST_REGION_PX = 4096


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


class TileGeometry(Protocol):
    """What a plan needs to know of a model; `models.base.ModelSpec` is one. Pixels are of its `mpp`."""

    @property
    def mpp(self) -> float: ...
    @property
    def core_px(self) -> int: ...
    @property
    def halo_px(self) -> int: ...
    @property
    def margin_px(self) -> int: ...
    @property
    def largest_nucleus_px(self) -> int: ...
    @property
    def reach_px(self) -> int: ...


@dataclass(frozen=True, eq=False)
class TilePlan:
    """`planned`: rows x cols, tiles whose core meets `area`; the rest of the grid is background.

    `area`: shapely MultiPolygon in level-0 pixels; a nucleus is kept when its prompt lies in it.
    """

    grid: TileGrid
    scale: Scale
    tiles_per_region: int
    planned: Bool
    area: Any

    @property
    def planned_tiles(self) -> int:
        return int(np.count_nonzero(self.planned))

    @property
    def background_tiles(self) -> int:
        return self.grid.tiles - self.planned_tiles

    def with_regions(self, tiles_per_region: int) -> Self:
        """The same tiles, otherwise grouped."""
        return replace(self, tiles_per_region=tiles_per_region)

    def regions(self) -> Iterator[Region]:
        return self.grid.regions(self.tiles_per_region, self.planned)

    def tasks(self) -> Iterator[RegionTask]:
        """One task a region, in order of the regions' indices."""
        parts = np.array(pieces(self.area), dtype=object)
        tree = shapely.STRtree(parts)
        for region in self.regions():
            box = region.read_box
            corners = np.array([box.x0, box.y0, box.x1, box.y1]) * self.grid.l0_per_grid
            near = np.sort(tree.query(shapely.box(*corners)))
            yield RegionTask(region, self.grid, self.scale, tuple(parts[near]))

    def estimated_bytes(self, batch: int = 1) -> int:
        """Pixels that one worker holds at most: a region as read, its tiles if resampled, a batch as floats."""
        edge_px = self.tiles_per_region * self.grid.core_px + 2 * self.grid.halo_px
        region_bytes = (edge_px * self.scale.level_px_per_grid) ** 2 * RGB_AND_MISSING_BYTES
        tile_bytes = self.grid.read_px**2 * 3
        resampled = 0 if self.scale.native else self.tiles_per_region**2
        return int(region_bytes) + (resampled + 4 * batch) * tile_bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `planned` as run lengths, row by row, the first of them background."""
        return {
            "grid": asdict(self.grid),
            "scale": asdict(self.scale),
            "tiles_per_region": self.tiles_per_region,
            "planned_runs": _runs(self.planned),
            "area_l0": json.loads(json.dumps(mapping(self.area))),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        grid = TileGrid(**values["grid"])
        lengths = values["planned_runs"]
        flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        planned = flat.reshape(grid.rows, grid.cols)
        area = shape(values["area_l0"])
        return cls(grid, Scale(**values["scale"]), values["tiles_per_region"], planned, area)

    def digest(self) -> str:
        """sha256 of the plan: equal plans, and only those, have equal digests."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        grid, scale, block = self.grid, self.scale, self.tiles_per_region
        how = "its own pixels" if scale.native else f"resampled {1 / scale.level_px_per_grid:.4g}x"
        area_mm2 = self.area.area * (scale.grid_mpp / scale.l0_per_grid / 1000) ** 2
        return "\n".join(
            [
                f"grid     {grid.cols} x {grid.rows} tiles of {grid.core_px} px (+ {grid.halo_px} px halo)",
                f"scale    {scale.grid_mpp:.4g} um/px, {scale.l0_per_grid:.4g} level-0 pixels each",
                f"read     level {scale.level} (downsample {scale.level_downsample:.4g}), {how}",
                f"tiles    {self.planned_tiles} planned, {self.background_tiles} background",
                f"regions  {sum(1 for _ in self.regions())} of up to {block} x {block} tiles",
                f"area     {area_mm2:.4g} mm2",
                f"memory   about {self.estimated_bytes() / 2**20:.0f} MiB of pixels per worker, without the model",
            ]
        )


def make_plan(
    info: SlideInfo,
    mpp: float,
    geometry: TileGeometry,
    area: Any,
    region_size: int = LARGEST_REGION_PX,
) -> TilePlan:
    """`mpp`: microns per level-0 pixel; `geometry`: of a model, see `models.base.check_geometry`; `area`: see
    TilePlan.

    `region_size`: edge of a region's cores in pixels that are read; a region has one tile at least.
    """
    scale = choose_scale(info, mpp, geometry.mpp)
    width, height = grid_size(info, scale.l0_per_grid)
    grid = TileGrid(width, height, geometry.core_px, geometry.halo_px, scale.l0_per_grid)
    tiles_per_region = tiles_per_edge(region_size, geometry.core_px, scale)
    return TilePlan(grid, scale, tiles_per_region, tiles_in(area, grid), area)


def tiles_per_edge(region_size: int, core_px: int, scale: Scale) -> int:
    """Counted in pixels as read: a slide that is read fourfold finer must not take 16 times the memory."""
    return max(1, round(region_size / (core_px * max(1.0, scale.level_px_per_grid))))


def _runs(planned: Bool) -> list[int]:
    lengths = [(key, sum(1 for _ in run)) for key, run in itertools.groupby(planned.ravel().tolist())]
    first_is_planned = bool(lengths) and lengths[0][0]
    return [0] * first_is_planned + [length for _, length in lengths]
