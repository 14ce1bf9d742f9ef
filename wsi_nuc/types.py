"""The frozen records that flow through a run.

Three frames, always named at the end of a variable:

* ``_l0``    level-0 pixels of the slide, x right, y down, origin at the top-left corner of the first pixel;
* ``_grid``  pixels of the model's resolution on the whole slide, same origin: ``xy_l0 = xy_grid * l0_per_grid``;
* ``_tile``  pixels of one tile: ``xy_grid = xy_tile + (tile.read_box.x0, tile.read_box.y0)``.

A pixel covers ``[i, i + 1)``; its centre lies at ``i + 0.5``. Boxes are half-open.

`SlideSource` is the protocol that every reader implements. Readers only fetch pixels; other modules choose, check
and cache them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Protocol

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
    """Where a slide is and how to open it. Picklable: workers open and cache their own handles."""

    path: str
    """A file, a folder, or an address such as s3://..."""
    reader: str = "auto"
    """A name of the reader registry, or "auto"."""
    mpp: float | None = None
    """The user's own microns per level-0 pixel, if given."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid."""

    width: int
    height: int
    downsample: float
    """Level-0 pixels per pixel of this level, 1 or more."""


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """Metadata of an open slide. Numbers only: no free text of the file comes in here."""

    reader: str
    """Name of the reader that opened it."""
    vendor: str
    width: int
    height: int
    levels: tuple[Level, ...]
    """The finest first, which is level 0."""
    mpp: float | None
    """Microns per level-0 pixel; None where it is unknown."""
    mpp_source: str
    """Where it came from: "header", "resolution tags", "objective" or "--mpp"."""
    mpp_problem: str = ""
    """Why it is None."""
    objective: float | None = None
    """Magnification of the objective, such as 20."""

    @property
    def box_l0(self) -> Box:
        return Box(0, 0, self.width, self.height)


@dataclass(frozen=True, slots=True)
class PixelBlock:
    """Pixels of a box, and which of them are none. Those are white, as pixels outside of the slide are."""

    rgb: UInt8
    """H x W x 3."""
    missing: Bool | None = None
    """H x W: where the file holds no data; None if all is there."""
    damaged: Bool | None = None
    """H x W: where its data cannot be decoded; None in what a reader gives, since readers raise instead."""
    cause: str = ""
    """Why the first damaged pixel cannot be decoded."""

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
    """One tile of the grid that covers a slide. Boxes are in grid pixels."""

    index: int
    """row * columns + column on the grid of the whole slide."""
    core_box: Box
    """Cores partition the grid."""
    read_box: Box
    """The core grown by the halo; it may overhang the slide."""


@dataclass(frozen=True, slots=True)
class TileBatch:
    """The pixels that a model looks at in one go."""

    rgb: UInt8
    """B x H x W x 3 (RGB, 0..255) at the model's resolution, one entry per tile."""
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Prompts:
    """One point per proposed nucleus."""

    xy_tile: Float32
    """N x 2."""
    score: Float32
    """N, in 0..1."""
    class_probs: Float32
    """N x C; each row sums to 1."""
    row: Int64
    """N: the entry of the batch that the point lies in."""

    def __len__(self) -> int:
        return len(self.score)

    def select(self, keep: npt.NDArray[Any]) -> Prompts:
        return Prompts(*(getattr(self, f.name)[keep] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class MaskCrops:
    """Masks in crops of one size, one per nucleus."""

    mask: UInt8
    """N x H x W, 0 or 1."""
    origin_tile: Int64
    """N x 2: x and y of each crop's first pixel, in tile pixels."""
    prompt: Int64
    """N: index into the prompts."""
    score: Float32
    """N, in 0..1."""
    predicted_iou: Float32
    """N; NaN where the model predicts none."""
    class_probs: Float32
    """N x C."""


@dataclass(frozen=True, slots=True)
class TileCounts:
    """What became of the tiles of a grid; the four add up to the grid."""

    processed: int = 0
    background: int = 0
    """Outside of the area in which nuclei are kept."""
    missing: int = 0
    """Without data in the file."""
    failed: int = 0
    """Without a result."""

    @property
    def total(self) -> int:
        return self.processed + self.background + self.missing + self.failed

    @classmethod
    def sum(cls, counts: Iterable[TileCounts]) -> TileCounts:
        rows = [(c.processed, c.background, c.missing, c.failed) for c in counts]
        return cls(*(int(sum(column)) for column in zip(*rows, strict=True))) if rows else cls()


class SlideSource(Protocol):
    """An open slide. It is not picklable and not shared between processes; a `SlideRef` travels instead."""

    @property
    def info(self) -> SlideInfo:
        """Size, levels and resolution of the slide."""
        ...

    def read(self, level: int, box: Box) -> PixelBlock:
        """The pixels of `box`, whose corners are in pixels of `level`. Outside of the level they are white.

        Raises DamagedPixels where the file's data cannot be decoded; the source stays usable afterwards.
        """
        ...

    def block_px(self, level: int) -> tuple[int, int]:
        """Width and height of the blocks in which the file stores the level, counted from the level's corner.

        Where a pixel cannot be decoded, its whole block cannot. This is a guess if the file has no such blocks.
        """
        ...

    def close(self) -> None: ...
