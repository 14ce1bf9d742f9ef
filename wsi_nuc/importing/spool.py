"""Outlines on disk, sorted by squares of the slide: rows come out in spatial order, and memory stays bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from wsi_nuc.importing.outlines import Outlines
from wsi_nuc.store import durable
from wsi_nuc.store.place import Place

SQUARE_PX = 4096
HELD_ROWS = 200_000


class Spool:
    """`add` any number of batches, then read the squares once, row by row."""

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        self._held: dict[tuple[int, int], list[Outlines]] = {}
        self._rows = 0

    def add(self, outlines: Outlines) -> None:
        if not len(outlines):
            return
        square = np.floor(outlines.xy[outlines.starts] / SQUARE_PX).astype(np.int64)
        keys, owner = np.unique(square, axis=0, return_inverse=True)
        for index, (column, row) in enumerate(keys.tolist()):
            here = outlines.select(np.flatnonzero(owner.ravel() == index))
            self._held.setdefault((row, column), []).append(here)
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
        """The outlines of each square, sorted by y, then x, of their first vertex."""
        self._flush()
        for name in self._folder.names():
            outlines = Outlines.concat(list(_load(self._folder / name)))
            first = outlines.xy[outlines.starts]
            yield outlines.select(np.lexsort((first[:, 0], first[:, 1])))


def _appending(square: Place) -> BinaryIO:
    return os.fdopen(durable.open_file(square, os.O_WRONLY | os.O_APPEND), "ab")


def _load(square: Place) -> Iterator[Outlines]:
    with square.reader() as file:
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            yield Outlines(*(np.load(file, allow_pickle=False) for _ in range(4)))
