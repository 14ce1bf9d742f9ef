"""The one protocol that every reader implements. Readers only fetch; opening, checks and caching are beside it."""

from __future__ import annotations

from typing import Protocol

from wsi_nuc.types import Box, PixelBlock, SlideInfo


class SlideSource(Protocol):
    """An open slide. Not picklable, not shared between processes; a `SlideRef` travels instead."""

    @property
    def info(self) -> SlideInfo: ...

    def read(self, level: int, box: Box) -> PixelBlock:
        """Pixels of `box`, in pixels of `level`. It may overhang the level: white there.

        Raises DamagedPixels where the file's data cannot be decoded; the source stays usable afterwards.
        """
        ...

    def block_px(self, level: int) -> tuple[int, int]:
        """Width and height of the blocks, from the level's corner on, that the file stores as one: where one pixel
        cannot be decoded, its block cannot. A guess where the file has no such blocks."""
        ...

    def close(self) -> None: ...
