"""Outlines sorted into squares of the slide on disk: rows come out in spatial order, and memory stays bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from wsi_nuc.importing.outlines import Outlines
from wsi_nuc.store import durable
from wsi_nuc.store.place import Place
from wsi_nuc.types import Float64, Int64

SQUARE_PX = 4096
HELD_ROWS = 200_000


class Spool:
    """`add` any number of batches, then read the squares, row by row, once."""

    def __init__(self, folder: Place) -> None:
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
            square = self._folder / f"{row:06}-{column:06}.npy"
            with durable.reported("write", square), _appending(square) as file:
                for outlines in held:
                    for values in (outlines.xy, outlines.offsets, outlines.class_id, outlines.score):
                        np.save(file, values, allow_pickle=False)
        self._held, self._rows = {}, 0

    def squares(self) -> Iterator[Outlines]:
        """Each square's outlines by the row and column of their first vertex."""
        self._flush()
        for name in self._folder.names():
            outlines = joined(list(_load(self._folder / name)))
            first = first_vertices(outlines)
            yield select(outlines, np.lexsort((first[:, 0], first[:, 1])))


def _appending(square: Place) -> BinaryIO:
    return os.fdopen(durable.open_file(square, os.O_WRONLY | os.O_APPEND), "ab")


def _load(square: Place) -> Iterator[Outlines]:
    with square.reader() as file:
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
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
