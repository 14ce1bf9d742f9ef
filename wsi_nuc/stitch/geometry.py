"""Where candidates can lie, and which places the stream can no longer touch. Pure arithmetic; see DESIGN.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wsi_nuc.errors import UsageError
from wsi_nuc.types import Bool, Float64, Int64

# A change of frame rounds: a prompt may lie this far outside of the box that held it in grid pixels.
SLACK_L0 = 0.5

BlockKey = tuple[int, int]
_FIRST_COLUMN = -(2**62)


@dataclass(frozen=True, slots=True)
class StitchGeometry:
    """The lengths that stitching needs, in level-0 pixels."""

    region_l0: float
    """Edge of a region's core."""
    margin_l0: float
    """How far beyond its core a tile keeps candidates."""
    reach_l0: float
    """How far a polygon extends at most from its own prompt, in x or y."""
    block_l0: float
    """Edge of the squares that order the output. It must not depend on the size of a region."""

    def __post_init__(self) -> None:
        positive = {"region_l0": self.region_l0, "reach_l0": self.reach_l0, "block_l0": self.block_l0}
        wrong = [name for name, value in positive.items() if not (value > 0 and math.isfinite(value))]
        if wrong or not (self.margin_l0 >= 0 and math.isfinite(self.margin_l0)):
            raise UsageError("stitch geometry", f"{self} has a length that is not positive", "check the plan")

    @property
    def prompt_guard_l0(self) -> float:
        """A prompt lies at most this far outside the core of its region."""
        return self.margin_l0 + SLACK_L0

    @property
    def polygon_guard_l0(self) -> float:
        """A polygon extends at most this far outside the core of its region."""
        return self.prompt_guard_l0 + self.reach_l0 + SLACK_L0

    @property
    def contact_l0(self) -> float:
        """Prompts of two candidates that overlap are at most this far apart in x and in y."""
        return 2 * (self.reach_l0 + SLACK_L0)

    @property
    def block_shift_l0(self) -> float:
        """Blocks start this far up and left of the multiples of `block_l0`.

        If regions are as large as blocks, a block is then decided right after its region, instead of a whole row
        of regions later. One more reach than needed leaves room for chains of overlaps.
        """
        return self.prompt_guard_l0 + 3 * (self.reach_l0 + SLACK_L0)

    def blocks(self, prompt_xy_l0: Float64) -> Int64:
        """N x 2: block row, block column of each prompt."""
        block: Int64 = np.floor((prompt_xy_l0[:, ::-1] + self.block_shift_l0) / self.block_l0).astype(np.int64)
        return block

    def cell(self, core_box_l0: tuple[float, float, float, float]) -> BlockKey:
        """Row and column of a region on the grid of regions."""
        column, row = (round(edge / self.region_l0) for edge in core_box_l0[:2])
        if (
            max(abs(row * self.region_l0 - core_box_l0[1]), abs(column * self.region_l0 - core_box_l0[0]))
            > SLACK_L0
        ):
            raise ValueError(f"region {core_box_l0} does not start on the grid of {self.region_l0} level-0 px")
        return row, column


@dataclass(frozen=True, slots=True)
class Frontier:
    """What is still to come: the cores at y >= `y1_l0`, and the cores at y >= `y0_l0` with x >= `x0_l0`."""

    geometry: StitchGeometry
    x0_l0: float
    y0_l0: float
    y1_l0: float

    @classmethod
    def before(cls, geometry: StitchGeometry, cell: BlockKey) -> Frontier:
        """All regions before `cell` (row, column) have come; `cell` itself has not."""
        edge = geometry.region_l0
        return cls(geometry, cell[1] * edge, cell[0] * edge, (cell[0] + 1) * edge)

    @classmethod
    def end(cls, geometry: StitchGeometry) -> Frontier:
        return cls(geometry, math.inf, math.inf, math.inf)

    def closed(self, bounds_l0: Float64) -> Bool:
        """N: whether no later candidate can overlap the box (N x 4: x0, y0, x1, y1)."""
        right, bottom = bounds_l0[:, 2], bounds_l0[:, 3]
        guard = self.geometry.polygon_guard_l0
        above, left = bottom <= self.y0_l0 - guard, right <= self.x0_l0 - guard
        closed: Bool = above | (left & (bottom <= self.y1_l0 - guard))
        return closed

    def first_open_block(self) -> BlockKey:
        """The first block, in the order of the output, in which a prompt may still arrive."""
        if math.isinf(self.y0_l0):
            return (2**62, 0)
        block, shift = self.geometry.block_l0, self.geometry.block_shift_l0 - self.geometry.prompt_guard_l0
        row = math.floor((self.y0_l0 + shift) / block)
        # The bottom edge of the row must be out of reach too, or no block in it is complete.
        if (row + 1) * block > self.y1_l0 + shift:
            return (row, _FIRST_COLUMN)
        return (row, math.floor((self.x0_l0 + shift) / block))
