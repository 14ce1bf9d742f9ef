"""One point per dark blob: maxima of differences of Gaussians over a few sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from wsi_nuc.models.classical.foreground import Int32, Scene, blurred
from wsi_nuc.models.classical.settings import Parameters
from wsi_nuc.types import Float32, Int64, Prompts

RATIO = 1.34


def propose(scenes: Sequence[Scene], parameters: Parameters, classes: int) -> Prompts:
    """The points of a batch, which has one scene per tile. A point alone says nothing about the class; the mask
    does."""
    points = [blobs(scene, parameters) for scene in scenes]
    rows = [np.full(len(xy), row, np.int64) for row, (xy, _) in enumerate(points)]
    xy_tile = np.concatenate([xy for xy, _ in points]).astype(np.float32) + np.float32(0.5)
    even = np.full((len(xy_tile), classes), 1 / classes, np.float32)
    return Prompts(xy_tile, np.concatenate([score for _, score in points]), even, np.concatenate(rows))


def blobs(scene: Scene, parameters: Parameters) -> tuple[Int64, Float32]:
    """A point for each dark blob, N x 2 pixels (x, y) in reading order, and the strength of each blob in 0..1.

    Blobs are maxima of differences of Gaussians over a few sizes.
    """
    strength = _strength(scene, parameters)
    edge = 2 * parameters.apart_px + 1
    largest = cv2.dilate(strength.astype(np.float32), np.ones((edge, edge), np.uint8))
    y, x = np.nonzero((strength >= largest) & (strength > parameters.blob_floor))
    xy = np.stack([x, y], axis=1).astype(np.int64)
    keep = _first_of_equals(xy, parameters.apart_px)
    value = strength[y, x][keep].astype(np.float32)
    return xy[keep], value / (value + np.float32(2 * parameters.blob_floor))


def _strength(scene: Scene, parameters: Parameters) -> Int32:
    sizes = [parameters.blob_px * RATIO**k for k in range(parameters.blob_scales + 1)]
    layers = [blurred(scene.soft, size).astype(np.int32) for size in sizes]
    strength = layers[0] - layers[1]
    for fine, coarse in pairwise(layers[1:]):
        np.maximum(strength, fine - coarse, out=strength)
    return strength


def _first_of_equals(xy: Int64, apart_px: int) -> Int64:
    """Two maxima this close are equally strong; the one that comes first in reading order stays."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(xy).query_pairs(apart_px + 0.5, p=np.inf, output_type="ndarray") if len(xy) else xy
    return np.setdiff1d(np.arange(len(xy)), pairs.max(axis=1) if len(pairs) else [])
