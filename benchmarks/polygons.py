"""Masks to valid polygons: how many per second on one core, and against contours of full-size masks."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.table import Row, interleaved, print_rows
from wsi_nuc.inference.outlines import trace
from wsi_nuc.types import MaskCrops, UInt8

CROP_PX, NUCLEUS_PX, TILE_PX = 64, 30, 1024


def nuclei(count: int, seed: int = 0) -> MaskCrops:
    """Wobbly ellipses of about `NUCLEUS_PX`, one per crop."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:CROP_PX, :CROP_PX] - CROP_PX / 2
    axes = rng.uniform(0.36, 0.62, (count, 2, 1, 1)) * NUCLEUS_PX
    turn, lobes = rng.uniform(0, np.pi, (count, 1, 1)), rng.uniform(0, 0.08, (count, 1, 1))
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    wobble = 1 + lobes * np.cos(3 * np.arctan2(v, u))
    mask = ((u / axes[:, 0]) ** 2 + (v / axes[:, 1]) ** 2 < wobble**2).astype(np.uint8)
    origin = rng.integers(0, TILE_PX - CROP_PX, (count, 2))
    nothing = np.full(count, np.nan, np.float32)
    return MaskCrops(mask, origin, np.arange(count), nothing, nothing, np.ones((count, 1), np.float32))


def full_mask_contours(masks: UInt8) -> int:
    """The common way: a contour search over a tile-sized mask for every nucleus, then a polygon from each."""
    import shapely

    done = 0
    for mask in masks:
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        done += bool(shapely.Polygon(max(contours, key=cv2.contourArea)[:, 0]).is_valid)
    return done


def measure(small: bool = False) -> list[Row]:
    cv2.setNumThreads(1)
    many, few = nuclei(500 if small else 20_000), nuclei(8 if small else 256, 1)
    full = np.zeros((len(few.mask), 256, 256), np.uint8)  # 256: the smallest tile in use, which favours the peer
    full[:, 96 : 96 + CROP_PX, 96 : 96 + CROP_PX] = few.mask
    ours, theirs = interleaved(lambda: trace(many), lambda: full_mask_contours(full))
    rate, peer = len(many.mask) / ours, len(full) / theirs
    return [
        Row("masks to valid polygons, 30 px in 64 px crops", rate, "1/s", ">= 100 k/s per core", rate >= 1e5),
        Row("over contours of full 256 px masks", rate / peer, "x", ">= 3", rate >= 3 * peer),
    ]


if __name__ == "__main__":
    print_rows(measure())
