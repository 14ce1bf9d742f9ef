"""How the haematoxylin is spread inside of a nucleus: gradients, moments, co-occurrence of neighbours."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_nuc.features.coverage import Coverage, Groups
from wsi_nuc.features.pixels import OD, Int16
from wsi_nuc.features.shape import ratio
from wsi_nuc.types import Float64, Int64

LEVELS, MOST_OD = 16, 1.6
# Row and column of the neighbour: right, down right, down, down left.
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))

Columns = dict[str, Float64]


def texture_features(haematoxylin: Int16, cover: Coverage, um_per_px: float) -> Columns:
    """Column name -> N values. `haematoxylin`: H x W in units of `OD`."""
    mean, sd = _gradient(haematoxylin, cover.inside)
    skewness, kurtosis = _moments(haematoxylin.ravel()[cover.inside.pixel], cover.inside)
    return {
        "gradient_mean": mean * OD / um_per_px,
        "gradient_sd": sd * OD / um_per_px,
        "skewness": skewness,
        "kurtosis": kurtosis,
        **_cooccurrence(_pairs(haematoxylin, cover)),
    }


def _gradient(image: Int16, inside: Groups) -> tuple[Float64, Float64]:
    """Of its length by Sobel's weights, an eighth each, in units a pixel."""
    slopes = (cv2.Sobel(image, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    dx, dy = (slope.ravel()[inside.pixel] for slope in slopes)
    length = np.hypot(dx.astype(np.float64), dy)
    mean = ratio(inside.sum(length), inside.count)
    square = ratio(inside.sum((length - mean[inside.owner]) ** 2), inside.count)
    return mean, np.sqrt(square)


def _moments(values: Int16, inside: Groups) -> tuple[Float64, Float64]:
    """Skewness and excess kurtosis; NaN where all values are equal."""
    mean = ratio(inside.sum(values.astype(np.float64)), inside.count)
    off = values - mean[inside.owner]
    square = off * off
    powers = (square, square * off, square * square)
    second, third, fourth = (ratio(inside.sum(power), inside.count) for power in powers)
    return ratio(third, second**1.5), ratio(fourth, second**2) - 3


def _pairs(image: Int16, cover: Coverage) -> Int64:
    """N x LEVELS**2: how often two neighbours have these levels, both in the same nucleus; symmetric."""
    levels = np.minimum(np.maximum(image.ravel(), 0) // np.int16(round(MOST_OD / OD / LEVELS)), LEVELS - 1)
    label, width, nuclei = cover.label.ravel(), image.shape[1], len(cover.inside.count)
    mine = label[cover.inside.pixel] == cover.number[cover.inside.owner]
    pixel, owner = cover.inside.pixel[mine], cover.inside.owner[mine]
    number, first = cover.number[owner], owner * LEVELS**2 + levels[pixel] * np.int64(LEVELS)
    codes = []
    for down, right in DIRECTIONS:
        other = np.minimum(pixel + (down * width + right), len(label) - 1)
        both = label[other] == number
        codes.append(first[both] + levels[other[both]])
    table = np.bincount(np.concatenate(codes), minlength=nuclei * LEVELS**2).reshape(nuclei, LEVELS, LEVELS)
    return np.asarray((table + table.transpose(0, 2, 1)).reshape(nuclei, -1))


def _cooccurrence(counts: Int64) -> Columns:
    """Sums of whole numbers, which are exact in any order, then one division."""
    i, j = (side.ravel() for side in np.mgrid[:LEVELS, :LEVELS])
    gap = np.abs(i - j)
    weights = np.stack([i, i * i, i * j, *(gap == d for d in range(LEVELS))], axis=1).astype(np.float64)
    sums = counts.astype(np.float64) @ weights
    total = sums[:, 3:].sum(axis=1)
    first, square, product, *gaps = ratio(sums, total[:, None]).T
    share = np.stack(gaps, axis=1)
    distance = np.arange(LEVELS)
    variance = square - first**2
    even = variance <= 1e-9
    return {
        "glcm_contrast": share @ distance**2.0,
        "glcm_dissimilarity": share @ (distance * 1.0),
        "glcm_homogeneity": share @ (1 / (1 + distance**2)),
        "glcm_asm": ratio((counts * counts).sum(axis=1).astype(np.float64), total**2),
        "glcm_entropy_bits": _entropy(counts, total),
        "glcm_correlation": np.where(even, 1.0, ratio(product - first**2, np.where(even, 0, variance))),
    }


def _entropy(counts: Int64, total: Float64) -> Float64:
    """log2 T - sum of c log2 c / T; the logarithms of all counts come from one table."""
    known = np.arange(int(counts.max(initial=0)) + 1, dtype=np.float64)
    table = known * np.log2(np.maximum(known, 1))
    return np.log2(np.where(total > 0, total, np.nan)) - ratio(table[counts].sum(axis=1), total)
