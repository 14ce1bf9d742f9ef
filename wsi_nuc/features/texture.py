"""Stain, texture and edge of a nucleus.

Stain is how much of each dye lies in the nucleus and around it. Texture is how the haematoxylin is spread:
gradients, moments and the co-occurrence of neighbouring pixels. The edge is how sharply it falls at the outline.
"""

from __future__ import annotations

import cv2
import numpy as np

from wsi_nuc.features.coverage import Coverage, Groups
from wsi_nuc.features.pixels import OD, Int16
from wsi_nuc.features.shape import ratio
from wsi_nuc.rings import Rings
from wsi_nuc.types import Float64, Int64

POINTS = 32
STEP_UM = 1.0
QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}
LEVELS, MOST_OD = 16, 1.6
# Row and column of the neighbour: right, down right, down, down left.
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))
Columns = dict[str, Float64]


def boundary_features(haematoxylin: Int16, rings: Rings, um_per_px: float) -> Columns:
    """Column name -> N values. `rings`: in pixels of `haematoxylin` (units of `OD`)."""
    points, outward = walk(rings)
    step = outward * (STEP_UM / um_per_px)
    inner, outer = (_sampled(haematoxylin, points + way * step) for way in (-1, 1))
    fall = (inner - outer) * OD / (2 * STEP_UM)
    return {
        "edge_sharpness": fall.mean(axis=1),
        "edge_sharpness_sd": fall.std(axis=1),
        "edge_fall_share": (fall > 0).mean(axis=1),
    }


def walk(rings: Rings) -> tuple[Float64, Float64]:
    """N x `POINTS` x 2 each: points evenly along each outline, and the outward direction (length 1) there."""
    edges = rings.edges()
    ends = np.cumsum(edges.length)
    begin = ends[edges.starts] - edges.length[edges.starts]
    around = ends[rings.offsets[1:] - 1] - begin
    wanted = begin[:, None] + around[:, None] * (np.arange(POINTS) + 0.5) / POINTS
    edge = np.searchsorted(ends, wanted.ravel()).clip(0, len(ends) - 1)
    length = np.where(edges.length[edge] > 0, edges.length[edge], 1)
    along = 1 - (ends[edge] - wanted.ravel()) / length
    x = edges.x[edge] + along * (edges.next_x - edges.x)[edge]
    y = edges.y[edge] + along * (edges.next_y - edges.y)[edge]
    points = np.stack([x, y], axis=1).reshape(-1, POINTS, 2)
    # From the point before to the point after: the single steps of a traced outline turn by 45 degrees.
    tangent = np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1)
    turn = np.sign(edges.sum(edges.cross))
    outward = np.stack([tangent[..., 1], -tangent[..., 0]], axis=-1) * turn[:, None, None]
    size = np.hypot(outward[..., 0], outward[..., 1])
    return points + edges.origin[:, None], outward / np.where(size > 0, size, 1)[..., None]


def _sampled(image: Int16, places: Float64) -> Float64:
    """Bilinear between pixel centres, to 1/32 px. Outside the image, the pixels at its edge count."""
    x, y = (np.ascontiguousarray(places[..., axis] - 0.5, np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float64)


def stain_features(key: str, stain: Int16, cover: Coverage, quantiles: bool) -> Columns:
    """Column name -> N values of one stain, which is in units of `OD`. Names begin with `key`."""
    flat = stain.ravel()
    inside, around = flat[cover.inside.pixel], flat[cover.ring.pixel]
    mean, sd = mean_sd(inside, cover.inside)
    ring_mean, ring_sd = mean_sd(around, cover.ring)
    named = {"mean": mean, "sd": sd, **(_quantiles(inside, cover.inside) if quantiles else {})}
    named |= {"ring_mean": ring_mean, "ring_sd": ring_sd, "contrast": mean - ring_mean}
    return {f"{key}_{name}": values * OD for name, values in named.items()}


def mean_sd(values: Int16, groups: Groups) -> tuple[Float64, Float64]:
    """Mean and standard deviation of whole numbers, from exact sums; NaN without a pixel."""
    wide = values.astype(np.float64)
    mean, square = (ratio(groups.sum(power), groups.count) for power in (wide, wide * wide))
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _quantiles(values: Int16, groups: Groups) -> Columns:
    """Linear between order statistics, like NumPy's. One sort serves all nuclei."""
    # Stable sorts of 16-bit numbers are radix sorts.
    by_value = np.argsort(values, kind="stable")
    by_owner = np.argsort(groups.owner[by_value].astype(np.uint16), kind="stable")
    ordered = values[by_value[by_owner]].astype(np.int64)
    owners = np.flatnonzero(groups.count)
    out = {}
    for name, q in QUANTILES.items():
        place = q * (groups.count[owners] - 1)
        low = np.floor(place).astype(np.int64)
        first = groups.starts[owners] + low
        following = np.minimum(first + 1, groups.starts[owners] + groups.count[owners] - 1)
        out[name] = np.full(len(groups.count), np.nan)
        out[name][owners] = ordered[first] + (place - low) * (ordered[following] - ordered[first])
    return out


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
        "od_clipped_share": _clipped(haematoxylin, cover.inside),
    }


def _gradient(image: Int16, inside: Groups) -> tuple[Float64, Float64]:
    """Mean and standard deviation of the gradient's length, in units per pixel: Sobel's weights over eight."""
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


def _clipped(image: Int16, inside: Groups) -> Float64:
    clipped = image.ravel()[inside.pixel] >= round(MOST_OD / OD)
    return ratio(inside.sum(clipped), inside.count)


def _pairs(image: Int16, cover: Coverage) -> Int64:
    """N x LEVELS**2: how often two neighbours have these levels, both in the same nucleus; symmetric."""
    levels = np.minimum(np.maximum(image.ravel(), 0) // np.int16(round(MOST_OD / OD / LEVELS)), LEVELS - 1)
    label, width, nuclei = cover.label.ravel(), image.shape[1], len(cover.inside.count)
    labelled = label[cover.inside.pixel] == cover.number[cover.inside.owner]
    pixel, owner = cover.inside.pixel[labelled], cover.inside.owner[labelled]
    number, first = cover.number[owner], owner * LEVELS**2 + levels[pixel] * np.int64(LEVELS)
    codes = []
    for down, right in DIRECTIONS:
        neighbour = np.minimum(pixel + (down * width + right), len(label) - 1)
        both = label[neighbour] == number
        codes.append(first[both] + levels[neighbour[both]])
    table = np.bincount(np.concatenate(codes), minlength=nuclei * LEVELS**2).reshape(nuclei, LEVELS, LEVELS)
    return np.asarray((table + table.transpose(0, 2, 1)).reshape(nuclei, -1))


def _cooccurrence(counts: Int64) -> Columns:
    """First sums of whole numbers, which are exact in any order, then one division."""
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
    """log2 T - sum of c log2 c / T. One table gives the logarithms of all counts."""
    known = np.arange(int(counts.max(initial=0)) + 1, dtype=np.float64)
    table = known * np.log2(np.maximum(known, 1))
    return np.log2(np.where(total > 0, total, np.nan)) - ratio(table[counts].sum(axis=1), total)
