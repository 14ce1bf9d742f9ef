"""What a reader returns: outlines, class names and scores, in batches of a bounded number of cells."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
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
    """A batch of N cells."""

    geometry: Sequence[Any]
    """N: shapely polygons in pixels of the file; None for a cell without a readable outline."""
    names: Sequence[str]
    """N: the class of each cell, "" if it has none."""
    score: Sequence[float]
    """N: 0 to 1."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user said about the file. "" leaves the choice to the reader."""

    element: str = ""
    """Which of several sets of cells."""
    class_column: str = ""
    """The property or column that holds the class."""


@dataclass(slots=True)
class Gathered:
    """Cells that are collected one by one into a batch."""

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
    """A polygon from nested coordinates; None if they do not make a polygon."""
    try:
        vertices = [np.asarray(ring, np.float64)[:, :2] for ring in rings]
        if not vertices or len(vertices[0]) < 3 or not all(np.isfinite(ring).all() for ring in vertices):
            return None
        return shapely.Polygon(vertices[0], [hole for hole in vertices[1:] if len(hole) >= 3])
    except (TypeError, ValueError, IndexError, OverflowError, shapely.errors.ShapelyError):
        return None


def certainty(said: Any) -> float:
    """The score of a cell whose file may say how sure it is; 1 if it says nothing that makes sense."""
    return float(said) if isinstance(said, int | float) and 0 <= said <= 1 else 1.0


def type_name(kind: Any, names: Any) -> str:
    """The name of a type that a file numbers. `names`: its map of types, if it has one."""
    if kind is None:
        return ""
    return str(names[str(kind)]) if isinstance(names, Mapping) and str(kind) in names else f"type {kind}"


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
