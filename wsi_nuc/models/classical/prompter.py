"""One point per blob of each scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_nuc.models.classical.foreground import Scene, blobs
from wsi_nuc.models.classical.settings import Parameters
from wsi_nuc.types import Prompts


def propose(scenes: Sequence[Scene], parameters: Parameters, classes: int) -> Prompts:
    """The points of a batch, which has one scene per tile. A point alone says nothing about the class; the mask
    does."""
    points = [blobs(scene, parameters) for scene in scenes]
    rows = [np.full(len(xy), row, np.int64) for row, (xy, _) in enumerate(points)]
    xy_tile = np.concatenate([xy for xy, _ in points]).astype(np.float32) + np.float32(0.5)
    even = np.full((len(xy_tile), classes), 1 / classes, np.float32)
    return Prompts(xy_tile, np.concatenate([score for _, score in points]), even, np.concatenate(rows))
