"""The frozen records that flow through a run.

Three frames, always named at the end of a variable:

* ``_l0``    level-0 pixels of the slide, x right, y down, origin at the top-left corner of the first pixel;
* ``_grid``  pixels of the model's resolution on the whole slide, same origin: ``xy_l0 = xy_grid * l0_per_grid``;
* ``_tile``  pixels of one tile: ``xy_grid = xy_tile + (tile.read_box.x0, tile.read_box.y0)``.

A pixel covers ``[i, i + 1)``; its centre lies at ``i + 0.5``. Boxes are half-open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Half-open box of integer pixels; its frame is in the name of the variable that holds it."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return max(0, self.x1 - self.x0)

    @property
    def height(self) -> int:
        return max(0, self.y1 - self.y0)

    @property
    def area(self) -> int:
        return self.width * self.height

    def grow(self, pixels: int) -> Box:
        return Box(self.x0 - pixels, self.y0 - pixels, self.x1 + pixels, self.y1 + pixels)

    def intersect(self, other: Box) -> Box:
        """The common box; its area is 0 where the two do not meet."""
        return Box(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def shift(self, dx: int, dy: int) -> Box:
        return Box(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy)


@dataclass(frozen=True, slots=True)
class SlideRef:
    """Where a slide is and how to open it. Picklable: workers open and cache their own handles.

    `reader` is a name of the reader registry or "auto"; `mpp` is the user's own microns per pixel, if given.
    """

    path: str
    reader: str = "auto"
    mpp: float | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """One pyramid level; `downsample` is level-0 pixels per pixel of this level (>= 1)."""

    width: int
    height: int
    downsample: float


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """Metadata of an open slide. Numbers only: no free text of the file comes in here.

    `mpp` is microns per level-0 pixel, None where unknown; `mpp_source` says where it came from
    ("header", "resolution tags", "objective", "--mpp"); `mpp_problem` why it is None.
    """

    reader: str
    vendor: str
    width: int
    height: int
    levels: tuple[Level, ...]
    mpp: float | None
    mpp_source: str
    mpp_problem: str = ""
    objective: float | None = None

    @property
    def box_l0(self) -> Box:
        return Box(0, 0, self.width, self.height)


@dataclass(frozen=True, slots=True)
class PixelBlock:
    """`rgb`: uint8 H x W x 3. `missing`: bool H x W, True where the file holds no data; None if all is there.

    `damaged`: bool H x W, True where its data cannot be decoded, with the first `cause`; None where a reader gave
    the block, since readers raise instead. Both are shown white. Pixels outside the slide are white and neither.
    """

    rgb: UInt8
    missing: Bool | None = None
    damaged: Bool | None = None
    cause: str = ""

    @property
    def lost(self) -> Bool | None:
        """Missing or damaged."""
        if self.missing is None or self.damaged is None:
            return self.damaged if self.missing is None else self.missing
        return self.missing | self.damaged


@dataclass(frozen=True, slots=True)
class Overview:
    """The low-resolution view of a slide: its pixel (x, y) covers level-0 pixels from ``(x, y) * l0_per_px``."""

    info: SlideInfo
    mpp: float
    """Microns per level-0 pixel: the header's, or the user's own."""
    rgb: UInt8
    """H x W x 3."""
    l0_per_px: float
    unknown: Bool
    """H x W: where the file holds no data or the data could not be decoded."""
    damaged: float
    """Share of the view that could not be decoded."""

    @property
    def um_per_px(self) -> float:
        return self.mpp * self.l0_per_px


@dataclass(frozen=True, slots=True)
class Tile:
    """`index` = row * columns + column on the global grid; `core_box` and `read_box` in grid pixels.

    Cores partition the grid; `read_box` is the core grown by the halo and may overhang the slide.
    """

    index: int
    core_box: Box
    read_box: Box


@dataclass(frozen=True, slots=True)
class TileBatch:
    """`rgb`: uint8 B x H x W x 3 (RGB, 0..255) at the model's resolution, one entry a tile."""

    rgb: UInt8
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Prompts:
    """One point a proposed nucleus. `xy_tile` N x 2 float32; `score` N in 0..1; `class_probs` N x C, rows
    sum to 1; `row` N int64, the entry of the batch that the point lies in."""

    xy_tile: Float32
    score: Float32
    class_probs: Float32
    row: Int64

    def __len__(self) -> int:
        return len(self.score)

    def select(self, keep: npt.NDArray[Any]) -> Prompts:
        return Prompts(*(getattr(self, f.name)[keep] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class MaskCrops:
    """Masks of one crop size. `mask`: uint8 N x H x W (0/1); `origin_tile`: N x 2 int64, x, y of each crop's
    first pixel in tile pixels; `prompt`: N int64 into the Prompts; `score` and `predicted_iou` N float32
    (NaN where the model predicts none); `class_probs` N x C."""

    mask: UInt8
    origin_tile: Int64
    prompt: Int64
    score: Float32
    predicted_iou: Float32
    class_probs: Float32


@dataclass(frozen=True, slots=True)
class TileCounts:
    """What became of the tiles of a grid; the four add up to the grid."""

    processed: int = 0
    background: int = 0
    missing: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.processed + self.background + self.missing + self.failed

    @classmethod
    def sum(cls, counts: Iterable[TileCounts]) -> TileCounts:
        rows = [(c.processed, c.background, c.missing, c.failed) for c in counts]
        return cls(*(int(sum(column)) for column in zip(*rows, strict=True))) if rows else cls()
