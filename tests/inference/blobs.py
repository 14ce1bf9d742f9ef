"""Random masks that look like nuclei, and some that do not."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from wsi_nuc.types import MaskCrops, UInt8


def random_blobs(seed: int, count: int, size: int = 48, roughness: float = 0.15) -> UInt8:
    """One connected, solid blob per crop, of 80 to 1000 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size][:, None] - size / 2 + rng.uniform(-2, 2, (2, count, 1, 1))
    turn, axes = rng.uniform(0, np.pi, (count, 1, 1)), rng.uniform(5, 18, (2, count, 1, 1))
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, size, size)), (0, 3, 3)) * 10 * roughness
    return ((u / axes[0]) ** 2 + (v / axes[1]) ** 2 < 1 + noise).astype(np.uint8)


def noise_masks(seed: int, count: int, size: int = 20) -> UInt8:
    """Specks, holes, corner contacts and masks that touch the rim of their crop."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, size, size)), (0, 1, 1))
    return (smooth > rng.uniform(-0.3, 0.5, (count, 1, 1))).astype(np.uint8)


def largest_filled(mask: UInt8) -> UInt8:
    """The plain way: the largest 4-connected part, with its holes filled; at a tie the one that is larger then."""
    labels, count = ndimage.label(mask)
    if not count:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())[1:]
    parts = [labels == 1 + index for index in np.flatnonzero(sizes == sizes.max())]
    filled = [ndimage.binary_fill_holes(part, np.ones((3, 3))).astype(np.uint8) for part in parts]
    return max(filled, key=np.sum)


def as_crops(mask: UInt8, origin: tuple[int, int] = (0, 0)) -> MaskCrops:
    count = len(mask)
    unknown = np.full(count, np.nan, np.float32)
    sure = np.ones(count, np.float32)
    return MaskCrops(mask, np.tile(np.array(origin), (count, 1)), np.arange(count), sure, unknown, sure[:, None])
