"""The protocol that every reader implements. Readers only fetch pixels; others open, check and cache slides."""

from __future__ import annotations

from typing import Protocol

from wsi_nuc.types import Box, PixelBlock, SlideInfo


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
