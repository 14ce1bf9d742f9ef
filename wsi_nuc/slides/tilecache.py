"""Decoded tiles that a neighbouring box may need again, in memory that is reused.

The page faults of a fresh array per tile cost half as much as the decoding, so buffers come from large slabs and
go back to them. A buffer may be reused once it is evicted, so cached pixels are only copied out under the lock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from wsi_nuc.types import UInt8

SLAB_BYTES = 8 * 2**20
# Of the tiles of the `jpegtiff` reader that a process keeps; other readers keep what their libraries do. More
# saves no decoding: regions share only the tiles along their edges.
MAX_BYTES = 24 * 2**20
TileKey = tuple[int, int, int, int]  # slide, level, row, column
Window = tuple[slice, slice]


class TileCache:
    """The least recently used tiles within `max_bytes`, for any number of threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max, self._bytes = max_bytes, 0
        self._tiles: OrderedDict[TileKey, UInt8] = OrderedDict()
        self._free: dict[tuple[int, ...], list[UInt8]] = {}
        self._lock = threading.Lock()

    def copy(self, key: TileKey, window: Window, target: UInt8, keep: bool = True) -> bool:
        """Copy `window` of a cached tile to `target`; False if it is not here. Without `keep`, the tile leaves."""
        with self._lock:
            pixels = self._tiles.pop(key, None)
            if pixels is None:
                return False
            target[:] = pixels[window]
            if keep:
                self._tiles[key] = pixels
            else:
                self._drop(pixels)
            return True

    def take(self, height: int, width: int) -> UInt8:
        """A buffer of height x width x 3 that belongs to the caller until `put` or `give`."""
        shape = (height, width, 3)
        with self._lock:
            free = self._free.setdefault(shape, [])
            if not free:
                # Buffers for tiles of another size go back to the system.
                self._free = {shape: free}
                free.extend(np.empty((max(1, SLAB_BYTES // (height * width * 3)), *shape), np.uint8))
            return free.pop()

    def give(self, buffer: UInt8) -> None:
        """Return a buffer unused."""
        with self._lock:
            self._free.setdefault(buffer.shape, []).append(buffer)

    def put(self, key: TileKey, buffer: UInt8) -> None:
        """Keep a decoded tile. The buffer belongs to the cache from now on."""
        with self._lock:
            self._bytes += buffer.nbytes
            # Two threads may have decoded the same tile: the second one replaces the first.
            replaced = self._tiles.pop(key, None)
            self._tiles[key] = buffer
            if replaced is not None:
                self._drop(replaced)
            while self._bytes > self._max:
                self._drop(self._tiles.popitem(last=False)[1])

    def _drop(self, buffer: UInt8) -> None:
        self._bytes -= buffer.nbytes
        self._free.setdefault(buffer.shape, []).append(buffer)

    def forget(self, slide: int) -> None:
        """Drop all tiles of a slide; the next slide gets their memory."""
        with self._lock:
            for key in [key for key in self._tiles if key[0] == slide]:
                self._drop(self._tiles.pop(key))
