"""Nuclei with their maps, as a network would give them: the perfect maps, blurred and noisy."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_nuc.models.hv import HvMaps, hv_of
from wsi_nuc.models.instances import Labels
from wsi_nuc.rings import Rings
from wsi_nuc.synth import SynthSpec
from wsi_nuc.synth.anatomy import Anatomy
from wsi_nuc.synth.truth import visible_nuclei
from wsi_nuc.types import Box, Float32

MPP = 0.25


def drawn(size: int, seed: int = 0, density: float = 2.0) -> Labels:
    """Labels of a square of a synthetic slide; many nuclei touch."""
    anatomy = Anatomy(SynthSpec(size=1024, mpp=MPP, seed=seed, density=density, tissue=1.0))
    nuclei = visible_nuclei(anatomy, (0, 0, size * MPP, size * MPP))
    return numbered(Rings.of_polygons(nuclei.polygon).fill(np.arange(1, len(nuclei) + 1), Box(0, 0, size, size)))


def discs(size: int, *circles: tuple[float, float, float]) -> Labels:
    """Labels of discs (x, y, radius) of pixels. Where two overlap, a pixel belongs to the nearer centre."""
    labels, nearest = np.zeros((size, size), np.int32), np.full((size, size), np.inf)
    for number, (cx, cy, radius) in enumerate(circles, 1):
        rows, columns = (slice(max(0, int(c - radius)), int(c + radius) + 2) for c in (cy, cx))
        part, least = labels[rows, columns], nearest[rows, columns]
        y, x = np.mgrid[: part.shape[0], : part.shape[1]]
        away = np.hypot(x + columns.start - cx, y + rows.start - cy)
        nearer = (away <= radius) & (away < least)
        part[nearer], least[nearer] = number, away[nearer]
    return labels


def numbered(labels: Labels) -> Labels:
    """The same labels with ids without gaps; there is background."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def seen(labels: Labels, seed: int = 0, noise: float = 0.1, classes: int = 2, stride: int = 1) -> HvMaps:
    rng = np.random.default_rng(seed)
    hv = np.stack([_blurred(plane, 1.0) + noise * _grain(rng, labels.shape) for plane in hv_of(labels)])
    foreground = _blurred((labels > 0).astype(np.float32), 1.0) + noise * _grain(rng, labels.shape)
    cells = tuple(-(-length // stride) for length in labels.shape)
    odds = np.exp([_grain(rng, cells) for _ in range(classes)])
    return HvMaps(np.clip(foreground, 0, 1), hv, (odds / odds.sum(axis=0)).astype(np.float32))


def cut(maps: HvMaps, box: Box) -> HvMaps:
    """The maps of `box`, 0 outside of the image, with class maps of the same size as the others."""
    height, width = maps.foreground.shape
    inside = box.intersect(Box(0, 0, width, height))
    sides = (inside.y0 - box.y0, box.y1 - inside.y1), (inside.x0 - box.x0, box.x1 - inside.x1)
    rows, columns = slice(inside.y0, inside.y1), slice(inside.x0, inside.x1)
    parts = (plane[..., rows, columns] for plane in (maps.foreground, maps.hv, maps.class_probs))
    return HvMaps(*(np.pad(part, ((0, 0),) * (part.ndim - 2) + sides) for part in parts))


def _blurred(plane: Float32, sigma: float) -> Float32:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    """Noise of unit variance in grains of some pixels."""
    grain = _blurred(rng.normal(size=shape).astype(np.float32), 1.5)
    return np.asarray(grain / grain.std(), np.float32)
