"""Outlines sorted into squares of the slide on disk: rows come out in spatial order, and memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsi_nuc.importing.outlines import Outlines
from wsi_nuc.store import durable
from wsi_nuc.types import Float64, Int64

SQUARE_PX = 4096
HELD_ROWS = 200_000


class Spool:
    """`add` any number of batches, then read the squares, row by row, once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[tuple[int, int], list[Outlines]] = {}
        self._rows = 0

    def add(self, outlines: Outlines) -> None:
        if not len(outlines):
            return
        square = np.floor(first_vertices(outlines) / SQUARE_PX).astype(np.int64)
        keys, owner = np.unique(square, axis=0, return_inverse=True)
        for index, (column, row) in enumerate(keys.tolist()):
            some = select(outlines, np.flatnonzero(owner.ravel() == index))
            self._held.setdefault((row, column), []).append(some)
        self._rows += len(outlines)
        if self._rows >= HELD_ROWS:
            self._flush()

    def _flush(self) -> None:
        for (row, column), held in self._held.items():
            try:
                with (self._folder / f"{row:06}-{column:06}.npy").open("ab") as file:
                    for outlines in held:
                        for values in (outlines.xy, outlines.offsets, outlines.class_id, outlines.score):
                            np.save(file, values, allow_pickle=False)
            except OSError as error:
                raise durable.storage_error(self._folder, error) from error
        self._held, self._rows = {}, 0

    def squares(self) -> Iterator[Outlines]:
        """Each square's outlines by the row and column of their first vertex."""
        self._flush()
        for path in sorted(self._folder.glob("*.npy")):
            outlines = joined(list(_load(path)))
            first = first_vertices(outlines)
            yield select(outlines, np.lexsort((first[:, 0], first[:, 1])))


def _load(path: Path) -> Iterator[Outlines]:
    with path.open("rb") as file:
        while file.tell() < path.stat().st_size:
            yield Outlines(*(np.load(file, allow_pickle=False) for _ in range(4)))


def first_vertices(outlines: Outlines) -> Float64:
    return outlines.xy[outlines.offsets[:-1]]


def select(outlines: Outlines, rows: Int64) -> Outlines:
    lengths = np.diff(outlines.offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    vertices = np.arange(offsets[-1]) + np.repeat(outlines.offsets[rows] - offsets[:-1], lengths)
    return Outlines(outlines.xy[vertices], offsets, outlines.class_id[rows], outlines.score[rows])


def joined(parts: list[Outlines]) -> Outlines:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return Outlines(
        np.concatenate([part.xy for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.class_id for part in parts]),
        np.concatenate([part.score for part in parts]),
    )
