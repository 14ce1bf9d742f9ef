"""From blocks to a pyramid of tiles: level 0 is written at once, the other levels wait in a band of tiles each."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_nuc.synth.paint import BLOCK_PX, GLASS
from wsi_nuc.synth.tiff import TiffFile, TiledImage
from wsi_nuc.types import UInt8

TILE_PX = 256
FACTOR = 4
SUBSAMPLING = (2, 1)
_COARSEST = 64


def jpeg(rgb: UInt8, quality: int) -> bytes:
    import imagecodecs

    encoded = imagecodecs.jpeg8_encode(
        rgb, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="422"
    )
    return bytes(encoded)


def downsamples(width: int, height: int) -> list[int]:
    """1, 4, 16 and 64, until the longer side fits into two tiles."""
    factors = [1]
    while factors[-1] < _COARSEST and max(width, height) // factors[-1] > 2 * TILE_PX:
        factors.append(factors[-1] * FACTOR)
    return [factor for factor in factors if min(width, height) // factor >= 1]


class Pyramid:
    """Blocks must come row by row, left to right. A block that is only glass is None."""

    def __init__(self, tiff: TiffFile, width: int, height: int, quality: int) -> None:
        self._tiff, self._quality = tiff, quality
        glass = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
        glass[:] = GLASS
        self._blank = tiff.add(jpeg(glass, quality))
        self._factors = downsamples(width, height)
        self.images = [
            tiff.image(width // factor, height // factor, TILE_PX, self._blank) for factor in self._factors
        ]
        self._bands = [_Band(image, factor) for image, factor in zip(self.images, self._factors, strict=True)]
        self._view_factor = next(4**k for k in range(6) if max(width, height) // 4**k <= 1024)
        shape = (max(1, height // self._view_factor), max(1, width // self._view_factor), 3)
        self._view = np.empty(shape, np.uint8)
        self._view[:] = GLASS

    def add(self, column: int, row: int, rgb: UInt8 | None) -> None:
        if rgb is not None:
            part_px = BLOCK_PX // self._view_factor
            window = self._view[row * part_px : (row + 1) * part_px, column * part_px : (column + 1) * part_px]
            small = cv2.resize(rgb, (part_px, part_px), interpolation=cv2.INTER_AREA)
            window[:] = small[: window.shape[0], : window.shape[1]]
        for band in self._bands:
            if rgb is not None:
                band.paste(column, rgb, row)
                # Whole tiles are written at once: a row of level-0 blocks would be most of the memory.
                if band.takes_whole_tiles:
                    self._flush(band)
            rgb = None if rgb is None else cv2.resize(rgb, None, fx=1 / 4, fy=1 / 4, interpolation=cv2.INTER_AREA)

    def end_row(self, row: int, last: bool) -> None:
        """Call this after the last block of each row of blocks."""
        for band in self._bands:
            if last or band.complete_after(row):
                self._flush(band)

    def thumbnail(self) -> TiledImage:
        """The whole slide as a single tile of at most 1024 px."""
        height, width = self._view.shape[:2]
        return self._tiff.image(width, height, max(width, height), self._tiff.add(jpeg(self._view, self._quality)))

    def _flush(self, band: _Band) -> None:
        image = band.image
        for tile_row, tile_column, rgb in band.tiles():
            offset, count = self._tiff.add(jpeg(rgb, self._quality))
            image.offset[tile_row, tile_column], image.count[tile_row, tile_column] = offset, count


class _Band:
    """The tile rows of a level that are not complete yet: as high as a block, or as a tile if that is higher."""

    def __init__(self, image: TiledImage, factor: int) -> None:
        self.image = image
        self._part_px = BLOCK_PX // factor
        self._height_px = max(TILE_PX, self._part_px)
        self._parts: dict[tuple[int, int], UInt8] = {}

    @property
    def takes_whole_tiles(self) -> bool:
        return self._part_px >= TILE_PX

    def complete_after(self, row: int) -> bool:
        return (row + 1) * self._part_px % self._height_px == 0

    def paste(self, column: int, rgb: UInt8, row: int) -> None:
        self._parts[row, column] = rgb

    def tiles(self) -> list[tuple[int, int, UInt8]]:
        """The tiles that hold more than glass: tile row, tile column, pixels. The band is empty afterwards."""
        tiles: dict[tuple[int, int], UInt8] = {}
        for (row, column), rgb in sorted(self._parts.items()):
            self._cut(row * self._part_px, column * self._part_px, rgb, tiles)
        self._parts = {}
        return [(*place, rgb) for place, rgb in sorted(tiles.items()) if (rgb != GLASS).any()]

    def _cut(self, y: int, x: int, rgb: UInt8, tiles: dict[tuple[int, int], UInt8]) -> None:
        """Copy a part, whose corner is at x, y of the level, into the tiles that it meets."""
        step = min(TILE_PX, self._part_px)
        rows, columns = self.image.offset.shape
        for dy in range(0, self._part_px, step):
            for dx in range(0, self._part_px, step):
                (row, inner_y), (column, inner_x) = divmod(y + dy, TILE_PX), divmod(x + dx, TILE_PX)
                if row < rows and column < columns:
                    if (row, column) not in tiles:
                        tiles[row, column] = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
                        tiles[row, column][:] = GLASS
                    tiles[row, column][inner_y : inner_y + step, inner_x : inner_x + step] = rgb[
                        dy : dy + step, dx : dx + step
                    ]
