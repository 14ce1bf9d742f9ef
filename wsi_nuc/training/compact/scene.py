"""A labelled image made ready for random crops: large enough, and with a table of its nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from wsi_nuc.datasets.record import Int32, LabelledImage
from wsi_nuc.training.pieces import pieces
from wsi_nuc.types import Bool, Float64, Int64, UInt8

# Spread of a nucleus of which only the point is known: a disk of 9 px, in square pixels.
POINT_SPREAD = 20.0


@dataclass(frozen=True, slots=True)
class Scene:
    """`instances` H x W (None: outlines not known), `region` H x W foreground (None likewise). Of the N nuclei
    `xy` N x 2 (first pixel's centre at 0.5), `spread` N x 2 x 2 covariance of the pixels, `kind` N (-1: not said);
    None where not even points are known."""

    id: str
    rgb: UInt8
    instances: Int32 | None
    region: Bool | None
    xy: Float64 | None
    spread: Float64 | None
    kind: Int64 | None


def scene_of(image: LabelledImage, least_px: int) -> Scene:
    """Reflected outwards until each side has `least_px`."""
    rgb = _grown(image.rgb, least_px)
    if image.instances is not None:
        labels, whole = pieces(_grown(image.instances.astype(np.uint16), least_px))
        xy, spread = moments(labels, len(whole))
        kind = np.full(len(whole), -1, np.int64) if image.types is None else image.types[whole - 1]
        return Scene(image.id, rgb, labels, labels > 0, xy, spread, kind)
    region = None if image.foreground is None else _grown(image.foreground.astype(np.uint8), least_px) > 0
    if image.points_xy is None or image.point_types is None:
        return Scene(image.id, rgb, None, region, None, None, None)
    # Points are not reflected: their images are large enough, or the frame stays without points.
    spread = np.tile(np.eye(2) * POINT_SPREAD, (len(image.points_xy), 1, 1))
    return Scene(image.id, rgb, None, region, image.points_xy, spread, image.point_types)


def _grown(array: Any, least_px: int) -> Any:
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
    half = np.full(2, 0.5)
    affine = np.column_stack([matrix, matrix @ half + shift - half])
    rgb = cv2.warpAffine(scene.rgb, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    def nearest(array: Any) -> Any:
        return cv2.warpAffine(array, affine, (size, size), flags=cv2.INTER_NEAREST)

    instances = None if scene.instances is None else nearest(scene.instances.astype(np.uint16)).astype(np.int32)
    region = None if scene.region is None else nearest(scene.region.astype(np.uint8)) > 0
    if scene.xy is None or scene.spread is None:
        return Scene(scene.id, np.asarray(rgb, np.uint8), instances, region, None, None, None)
    xy, spread = scene.xy @ matrix.T + shift, matrix @ scene.spread @ matrix.T
    return Scene(scene.id, np.asarray(rgb, np.uint8), instances, region, xy, spread, scene.kind)
