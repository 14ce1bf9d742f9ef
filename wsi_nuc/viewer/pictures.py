"""Pixels for a page: tiles of a slide, or of the thumbnail that a store keeps of it, as JPEG."""

from __future__ import annotations

import math
import threading

import cv2
import numpy as np

from wsi_nuc.errors import SlideError
from wsi_nuc.resampling import resized
from wsi_nuc.slides.pixels import read_around
from wsi_nuc.types import Box, SlideSource, UInt8
from wsi_nuc.viewer.guard import NotThere

TILE_PX, QUALITY = 512, 88
# A tile of a slide without small levels would decode more than this: it is cut from the thumbnail instead.
MOST_PIXELS = 2**25


def jpeg(rgb: UInt8, quality: int = QUALITY) -> bytes:
    done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise SlideError("", "a tile cannot be written as JPEG")
    return data.tobytes()


class Pyramid:
    """Tiles of `TILE_PX` at every power of two, from a slide, its thumbnail or both."""

    def __init__(self, size_l0: tuple[int, int], source: SlideSource | None, small: UInt8 | None) -> None:
        self.size_l0, self._source, self._small = size_l0, source, small
        self._lock = threading.Lock()
        self.steps = max(0, math.ceil(math.log2(max(*size_l0, 1))))
        """The tile of this step is a single pixel."""

    def size(self, step: int) -> tuple[int, int]:
        width, height = (max(1, -(-side // 2**step)) for side in self.size_l0)
        return width, height

    def tile(self, step: int, x: int, y: int) -> bytes:
        """The JPEG of column x, row y where a pixel has 2**step level-0 pixels; NotThere where there is none."""
        width, height = self.size(step) if 0 <= step <= self.steps else (0, 0)
        box = Box(x * TILE_PX, y * TILE_PX, min((x + 1) * TILE_PX, width), min((y + 1) * TILE_PX, height))
        if x < 0 or y < 0 or box.width <= 0 or box.height <= 0:
            raise NotThere("there is no such tile")
        return jpeg(self._pixels(box, 2**step))

    def _pixels(self, box: Box, scale: int) -> UInt8:
        size = box.width, box.height
        if self._source is not None:
            levels = self._source.info.levels
            usable = [i for i, level in enumerate(levels) if level.downsample <= scale * 1.01] or [0]
            index = max(usable, key=lambda i: levels[i].downsample)
            ratio = scale / levels[index].downsample
            x0, y0, x1, y1 = (edge * ratio for edge in (box.x0, box.y0, box.x1, box.y1))
            around = Box(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))
            if self._small is None or around.area <= MOST_PIXELS:
                with self._lock:
                    rgb = read_around(self._source, index, around).rgb
                if size == rgb.shape[1::-1]:
                    return rgb
                return resized(rgb, size, (x0 - around.x0, y0 - around.y0, x1 - around.x0, y1 - around.y0))
        if self._small is None:
            return np.full((*size[::-1], 3), 255, np.uint8)
        per_l0 = self._small.shape[1] / self.size_l0[0], self._small.shape[0] / self.size_l0[1]
        wide, high = (edge * scale * per for edge, per in ((box.x1, per_l0[0]), (box.y1, per_l0[1])))
        corners = (
            box.x0 * scale * per_l0[0],
            box.y0 * scale * per_l0[1],
            min(wide, self._small.shape[1]),
            min(high, self._small.shape[0]),
        )
        return resized(self._small, size, corners)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
