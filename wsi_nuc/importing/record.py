"""What a reader hands over: outlines, class names and scores, a bounded number of cells at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_nuc.errors import UsageError

BATCH_CELLS = 20_000
UNCLASSIFIED = "unclassified"


@dataclass(frozen=True, slots=True)
class Cells:
    """`geometry`: N shapely polygons in the file's pixels, or None where a cell has no outline that can be read;
    `names`: the class of each, "" for none; `score`: 0 to 1 each."""

    geometry: Sequence[Any]
    names: Sequence[str]
    score: Sequence[float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user said of the file. `element`: which of several sets of cells; `class_column`: the property or
    column that holds the class; both "" to find out."""

    element: str = ""
    class_column: str = ""


@dataclass(slots=True)
class Gathered:
    """Cells one by one into batches."""

    geometry: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def add(self, geometry: Any, name: str, score: float = 1.0) -> None:
        self.geometry.append(geometry)
        self.names.append(name)
        self.score.append(score)

    @property
    def full(self) -> bool:
        return len(self.names) >= BATCH_CELLS

    def batch(self) -> Cells:
        return Cells(self.geometry, self.names, self.score)


def batches(cells: Iterator[tuple[Any, str, float]]) -> Iterator[Cells]:
    held = Gathered()
    for cell in cells:
        held.add(*cell)
        if held.full:
            yield held.batch()
            held = Gathered()
    if held.names:
        yield held.batch()


def polygon(rings: Any) -> Any:
    """A polygon from nested coordinates; None where they make none."""
    try:
        found = [np.asarray(ring, np.float64)[:, :2] for ring in rings]
        if not found or len(found[0]) < 3 or not all(np.isfinite(ring).all() for ring in found):
            return None
        return shapely.Polygon(found[0], [ring for ring in found[1:] if len(ring) >= 3])
    except (TypeError, ValueError, IndexError, OverflowError, shapely.errors.ShapelyError):
        return None


def head(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file, decompressed; b"" for a folder."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        start = file.read(size)
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as unpacked:
                start = unpacked.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(path, f"cannot be read ({error})", "copy the file again") from error
    return start
