"""Slides in memory and painted scenes for the tests of tiling; colours were picked from real scans."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from wsi_nuc.errors import DamagedPixels
from wsi_nuc.types import Bool, Box, Level, PixelBlock, SlideInfo, UInt8

GLASS, EOSIN, DENSE, PALE = (243, 242, 244), (214, 150, 190), (120, 80, 150), (235, 225, 234)
PENS = {"blue": (50, 80, 180), "green": (40, 140, 70), "red": (205, 35, 45), "black": (25, 25, 30)}


class ArraySource:
    """A slide held as arrays. `missing`: bool of level 0; `damaged`: boxes of level 0 that cannot be decoded, and
    with them their whole blocks of `block` px."""

    def __init__(
        self,
        rgb: UInt8,
        downsamples: tuple[int, ...] = (1,),
        missing: Bool | None = None,
        damaged: tuple[Box, ...] = (),
        block: int = 64,
    ) -> None:
        sizes = [(max(1, rgb.shape[1] // d), max(1, rgb.shape[0] // d)) for d in downsamples]
        self.levels = [cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) for size in sizes]
        self.missing, self.block, self.reads = missing, block, list[tuple[int, Box]]()
        self.damaged = tuple(
            Box(x, y, x + block, y + block)
            for bad in damaged
            for y in range(bad.y0 // block * block, bad.y1, block)
            for x in range(bad.x0 // block * block, bad.x1, block)
        )
        levels = tuple(Level(*size, float(d)) for size, d in zip(sizes, downsamples, strict=True))
        self.info = SlideInfo("array", "", rgb.shape[1], rgb.shape[0], levels, None, "")

    def read(self, level: int, box: Box) -> PixelBlock:
        self.reads.append((level, box))
        if level == 0 and any(bad.intersect(box).area for bad in self.damaged):
            raise DamagedPixels("slide", "the tile data are not a JPEG")
        rgb = np.full((box.height, box.width, 3), 255, np.uint8)
        self._copy(self.levels[level], rgb, box)
        if self.missing is None or level:
            return PixelBlock(rgb)
        missing = np.zeros((box.height, box.width), np.bool_)
        self._copy(self.missing, missing, box)
        return PixelBlock(np.where(missing[..., None], np.uint8(255), rgb), missing)

    def block_px(self, level: int) -> tuple[int, int]:
        return self.block, self.block

    def close(self) -> None:
        pass

    @staticmethod
    def _copy(pixels: np.ndarray, into: np.ndarray, box: Box) -> None:
        part = box.intersect(Box(0, 0, pixels.shape[1], pixels.shape[0]))
        if part.area:
            place = np.s_[part.y0 - box.y0 : part.y1 - box.y0, part.x0 - box.x0 : part.x1 - box.x0]
            into[place] = pixels[part.y0 : part.y1, part.x0 : part.x1]


def glass(width: int = 1200, height: int = 900, noise: float = 2.0, colour: tuple[int, ...] = GLASS) -> UInt8:
    """An empty slide with sensor noise."""
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(colour, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def blob(shape: tuple[int, ...], centre: tuple[int, int], radius: int, seed: int = 0) -> Bool:
    """A lobed disc: something with the outline of a tissue section."""
    y, x = np.indices(shape[:2])
    angle = np.arctan2(y - centre[1], x - centre[0])
    rng = np.random.default_rng(seed)
    lobes = sum(rng.uniform(0, 0.12) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 7))
    return np.asarray(np.hypot(y - centre[1], x - centre[0]) < radius * (1 + lobes))


def paint(image: UInt8, mask: Bool, colour: tuple[int, ...], texture: float = 8.0) -> UInt8:
    """The mask in the colour, with texture; a new image."""
    rng = np.random.default_rng(1)
    grain = cv2.GaussianBlur(rng.normal(0, texture * 3, image.shape[:2]), (0, 0), 2)[..., None]
    done = np.where(mask[..., None], np.asarray(colour) + grain, image)
    return np.clip(cv2.GaussianBlur(done, (0, 0), 0.7), 0, 255).astype(np.uint8)


@functools.cache
def section(tissue: tuple[int, ...] = EOSIN) -> tuple[UInt8, Bool]:
    """Two pieces of tissue on glass at 8 um/px, and where they are."""
    image = glass()
    mask = blob(image.shape, (420, 450), 230) | blob(image.shape, (850, 520), 150, seed=3)
    return paint(image, mask, tissue), mask


def pen_strokes(shape: tuple[int, ...]) -> Bool:
    """A hand-drawn ring around the first piece and a stroke beside it, about 0.3 mm wide."""
    canvas = np.zeros(shape[:2], np.uint8)
    cv2.ellipse(canvas, (420, 450), (330, 310), 0, 0, 330, 1, 38)
    cv2.line(canvas, (1040, 80), (1120, 380), 1, 30)
    return canvas > 0
