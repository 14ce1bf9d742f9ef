"""Small scenes with H&E-like nuclei, and tiles cut from them."""

from __future__ import annotations

import numpy as np

from wsi_nuc.types import Box, Float64, Tile, TileBatch, UInt8

NUCLEUS, STROMA = np.array([95, 60, 130.0]), np.array([225, 185, 215.0])


def scene(seed: int, size: int, spacing_px: int = 26) -> UInt8:
    """Dark ellipses of 5 to 9 px radius, some of them touching, on noisy pink."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-12:13, -12:13]
    cover: Float64 = np.zeros((size + 24, size + 24))
    for cx, cy in rng.uniform(0, size, ((size // spacing_px) ** 2, 2)):
        a, b, turn = rng.uniform(5, 9), rng.uniform(4, 7), rng.uniform(0, np.pi)
        left, top = int(cx), int(cy)
        dx, dy = x + 0.5 - (cx - left), y + 0.5 - (cy - top)
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        window = cover[top : top + 25, left : left + 25]
        np.maximum(window, np.clip((1 - np.hypot(u / a, v / b)) * 4 + 0.5, 0, 1), out=window)
    cover = cover[12:-12, 12:-12]
    rgb = STROMA + cover[..., None] * (NUCLEUS - STROMA) + rng.normal(0, 5, (size, size, 1))
    return np.clip(rgb, 0, 255).astype(np.uint8)


def one_tile(rgb: UInt8, core: Box, halo_px: int, index: int = 0) -> TileBatch:
    """The tile of `core` (pixels of `rgb`) with its halo, white outside of the image."""
    read = core.grow(halo_px)
    out = np.full((read.height, read.width, 3), 255, np.uint8)
    seen = read.intersect(Box(0, 0, rgb.shape[1], rgb.shape[0]))
    out[seen.y0 - read.y0 : seen.y1 - read.y0, seen.x0 - read.x0 : seen.x1 - read.x0] = rgb[
        seen.y0 : seen.y1, seen.x0 : seen.x1
    ]
    return TileBatch(out[None], (Tile(index, core, read),))
