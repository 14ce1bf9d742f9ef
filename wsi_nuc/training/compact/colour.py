"""What stains, scanners and compression do to the same tissue, drawn at random."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from wsi_nuc.types import Float32, UInt8

# Optical densities of haematoxylin, eosin and what is left; rows of length 1.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


def vary(rgb: UInt8, rng: np.random.Generator, strength: float = 1.0) -> UInt8:
    """H x W x 3 in, the same tissue as another laboratory might show it out. `strength` 0 changes nothing."""
    if strength == 0:
        return rgb
    if rng.random() < 0.9:
        rgb = restain(rgb, rng, strength)
    if rng.random() < 0.3:
        rgb = np.asarray(cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.3, 0.3 + 1.1 * strength))), np.uint8)
    if rng.random() < 0.15:
        rgb = coarsen(rgb, float(rng.uniform(1.2, 2.2)))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 1 + 7 * strength), (*rgb.shape[:2], 1)).astype(np.float32)
        rgb = np.clip(rgb + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        rgb = compress(rgb, int(rng.integers(30, 90)))
    return rgb


def restain(rgb: UInt8, rng: np.random.Generator, strength: float) -> UInt8:
    """Other amounts of each stain, other stain vectors, another background and gamma."""
    density: Float32 = _DENSITY[rgb]
    other = STAINS + rng.normal(0, 0.05 * strength, STAINS.shape)
    amount = np.exp(rng.normal(0, 0.25 * strength, 3))
    change = np.linalg.inv(STAINS) @ (amount[:, None] * other)
    density = density @ change.astype(np.float32)
    density *= np.float32(np.exp(rng.normal(0, 0.15 * strength)))
    density += rng.normal(0, 0.03 * strength, 3).astype(np.float32)
    if rng.random() < 0.15:
        grey = density.mean(2, keepdims=True)
        density = grey + (density - grey) * np.float32(rng.uniform(0.2, 1.3))
    return np.asarray(np.clip(np.exp(-density) * 256 - 1, 0, 255), np.uint8)


def coarsen(rgb: UInt8, factor: float) -> UInt8:
    """As if scanned at a lower magnification and enlarged."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def compress(rgb: UInt8, quality: int) -> UInt8:
    """Through JPEG and back."""
    _, coded = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Any = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[:, :, ::-1])
