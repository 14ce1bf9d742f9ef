"""Labelled images made ready for random crops, and the random variations of a crop.

A scene is an image that is large enough, with a table of its nuclei; `warp` makes crops of it. `vary` imitates at
random what stains, scanners and compression do to the same tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from wsi_nuc.datasets.record import Int32, LabelledImage
from wsi_nuc.training.pieces import pieces
from wsi_nuc.types import Bool, Float32, Float64, Int64, UInt8

# Optical densities of haematoxylin, eosin and what is left; rows of length 1.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
# Spread, in square pixels, of a nucleus of which only the point is known: that of a disk of 9 px.
POINT_SPREAD = 20.0


def vary(rgb: UInt8, rng: np.random.Generator, strength: float = 1.0) -> UInt8:
    """The same tissue (H x W x 3) as another laboratory might show it. `strength` 0 changes nothing."""
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
    """Change the amounts of the stains, their vectors, the background and gamma."""
    density: Float32 = _DENSITY[rgb]
    vectors = STAINS + rng.normal(0, 0.05 * strength, STAINS.shape)
    amount = np.exp(rng.normal(0, 0.25 * strength, 3))
    change = np.linalg.inv(STAINS) @ (amount[:, None] * vectors)
    density = density @ change.astype(np.float32)
    density *= np.float32(np.exp(rng.normal(0, 0.15 * strength)))
    density += rng.normal(0, 0.03 * strength, 3).astype(np.float32)
    if rng.random() < 0.15:
        grey = density.mean(2, keepdims=True)
        density = grey + (density - grey) * np.float32(rng.uniform(0.2, 1.3))
    return np.asarray(np.clip(np.exp(-density) * 256 - 1, 0, 255), np.uint8)


def coarsen(rgb: UInt8, factor: float) -> UInt8:
    """As if it had been scanned at a lower magnification and enlarged."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def compress(rgb: UInt8, quality: int) -> UInt8:
    """Through JPEG and back."""
    _, coded = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Any = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[:, :, ::-1])


@dataclass(frozen=True, slots=True)
class Scene:
    """A labelled image with a table of its N nuclei. What is not known of the image is None."""

    id: str
    """The name of the image."""
    rgb: UInt8
    """H x W x 3."""
    instances: Int32 | None
    """H x W labels, 1..N."""
    region: Bool | None
    """H x W: the foreground."""
    xy: Float64 | None
    """N x 2 centres; the first pixel's centre lies at 0.5."""
    spread: Float64 | None
    """N x 2 x 2: covariance of the pixels of each nucleus."""
    kind: Int64 | None
    """N classes; -1: not known."""
    stain_px: tuple[float, float] = (0.0, 0.0)
    """How far right and down of the labels the stain lies; in crops it is mended."""


def scene_of(image: LabelledImage, least_px: int, stain_px: tuple[float, float] = (0.0, 0.0)) -> Scene:
    """The scene of an image, which is reflected outwards until each side has `least_px`. `stain_px`: see
    `Scene`."""
    rgb = grown(image.rgb, least_px)
    if image.instances is not None:
        labels, whole = pieces(grown(image.instances.astype(np.uint16), least_px))
        xy, spread = moments(labels, len(whole))
        kind = np.full(len(whole), -1, np.int64) if image.types is None else image.types[whole - 1]
        return Scene(image.id, rgb, labels, labels > 0, xy, spread, kind, stain_px)
    region = None if image.foreground is None else grown(image.foreground.astype(np.uint8), least_px) > 0
    if image.points_xy is None or image.point_types is None:
        return Scene(image.id, rgb, None, region, None, None, None)
    # Points are not reflected: where an image is too small, the frame around it has no points.
    spread = np.tile(np.eye(2) * POINT_SPREAD, (len(image.points_xy), 1, 1))
    return Scene(image.id, rgb, None, region, image.points_xy, spread, image.point_types)


def grown(array: Any, least_px: int) -> Any:
    below, beside = (max(0, least_px - length) for length in array.shape[:2])
    if not below and not beside:
        return np.ascontiguousarray(array)
    pads = ((0, below), (0, beside)) + ((0, 0),) * (array.ndim - 2)
    return np.ascontiguousarray(np.pad(array, pads, mode="symmetric"))


def moments(labels: Int32, count: int) -> tuple[Float64, Float64]:
    """Centre (N x 2) and covariance (N x 2 x 2) of the pixels of ids 1..N."""
    inside = np.flatnonzero(labels)
    ids = labels.flat[inside]
    y, x = (part + 0.5 for part in np.divmod(inside, labels.shape[1]))
    area = np.maximum(np.bincount(ids, minlength=count + 1)[1:], 1)

    def mean(values: Float64) -> Float64:
        return np.asarray(np.bincount(ids, weights=values, minlength=count + 1)[1:] / area)

    cx, cy = mean(x), mean(y)
    xx, xy, yy = mean(x * x) - cx * cx, mean(x * y) - cx * cy, mean(y * y) - cy * cy
    return np.stack([cx, cy], 1), np.stack([np.stack([xx, xy], 1), np.stack([xy, yy], 1)], 1)


def warp(scene: Scene, matrix: Float64, shift: Float64, size: int) -> Scene:
    """The crop of `size` pixels that ``matrix @ xy + shift`` makes of the scene's pixels."""
    # OpenCV counts from the centre of the first pixel.
    half, beside = np.full(2, 0.5), matrix @ np.asarray(scene.stain_px)
    affine = np.column_stack([matrix, matrix @ half + shift - half])
    labelled = affine + np.column_stack([np.zeros((2, 2)), beside])
    rgb = cv2.warpAffine(scene.rgb, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    def nearest(array: Any) -> Any:
        return cv2.warpAffine(array, labelled, (size, size), flags=cv2.INTER_NEAREST)

    instances = None if scene.instances is None else nearest(scene.instances.astype(np.uint16)).astype(np.int32)
    region = None if scene.region is None else nearest(scene.region.astype(np.uint8)) > 0
    if scene.xy is None or scene.spread is None:
        return Scene(scene.id, np.asarray(rgb, np.uint8), instances, region, None, None, None)
    xy, spread = scene.xy @ matrix.T + shift + beside, matrix @ scene.spread @ matrix.T
    return Scene(scene.id, np.asarray(rgb, np.uint8), instances, region, xy, spread, scene.kind)
