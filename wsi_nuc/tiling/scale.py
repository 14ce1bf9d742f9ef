"""Which pyramid level is read, and how many level-0 pixels one pixel of the model's resolution covers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wsi_nuc.errors import SlideError
from wsi_nuc.resampling import nearly_one
from wsi_nuc.types import Box, Level, SlideInfo

# Beyond this a nucleus of 8 um is a handful of pixels; nothing that is enlarged from it can be trusted.
MAX_ENLARGEMENT = 4.0


@dataclass(frozen=True, slots=True)
class Scale:
    """`level_px_per_grid` = l0_per_grid / level_downsample: exactly 1 where native pixels are used."""

    level: int
    level_downsample: float
    l0_per_grid: float
    grid_mpp: float

    @property
    def level_px_per_grid(self) -> float:
        return self.l0_per_grid / self.level_downsample

    @property
    def native(self) -> bool:
        return self.l0_per_grid == self.level_downsample

    def level_box(self, box_grid: Box) -> Box:
        """The pixels of the level that the resampled pixels of `box_grid` depend on."""
        ratio = self.level_px_per_grid
        if self.native:
            return box_grid
        # The triangle filter reaches one output pixel beyond, and at least one input pixel.
        reach = math.ceil(max(ratio, 1.0)) + 1
        low = (math.floor(box_grid.x0 * ratio), math.floor(box_grid.y0 * ratio))
        high = (math.ceil(box_grid.x1 * ratio), math.ceil(box_grid.y1 * ratio))
        return Box(*low, *high).grow(reach)


def choose_scale(info: SlideInfo, mpp: float, model_mpp: float) -> Scale:
    """The scale at which a model of `model_mpp` reads a slide of `mpp` microns per level-0 pixel."""
    wanted = model_mpp / mpp
    if wanted * MAX_ENLARGEMENT < 1:
        raise SlideError(
            "",
            f"its {mpp:g} um/px are over {MAX_ENLARGEMENT:g} times as coarse as the model's {model_mpp:g} um/px",
            "scan at a higher magnification, or pass --mpp if the file states a wrong resolution",
        )
    l0_per_grid = _snapped(wanted, info.levels)
    level = _finest_enough(l0_per_grid, info.levels)
    return Scale(level, info.levels[level].downsample, l0_per_grid, mpp * l0_per_grid)


def grid_size(info: SlideInfo, l0_per_grid: float) -> tuple[int, int]:
    """Width and height in grid pixels; a last pixel that the slide only partly covers counts."""
    width, height = (math.ceil(edge / l0_per_grid - 1e-6) for edge in (info.width, info.height))
    return max(1, width), max(1, height)


def _snapped(wanted: float, levels: tuple[Level, ...]) -> float:
    nearest = min((level.downsample for level in levels), key=lambda d: abs(math.log(wanted / d)))
    return nearest if nearly_one(wanted / nearest) else wanted


def _finest_enough(l0_per_grid: float, levels: tuple[Level, ...]) -> int:
    """The coarsest level that still has all the detail; level 0 where even that one has to be enlarged."""
    enough = [i for i, level in enumerate(levels) if level.downsample <= l0_per_grid]
    return max(enough, key=lambda i: levels[i].downsample, default=0)
