"""Which pixel belongs to which point: a flood from all points at once, darkest pixels first, a bounded way far."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import SlideError
from wsi_nuc.models.classical.foreground import SOFT, Scene
from wsi_nuc.models.classical.settings import Parameters
from wsi_nuc.types import Int64

Labels = npt.NDArray[np.uint16]


def flood(scene: Scene, xy: Int64, parameters: Parameters) -> Labels:
    """H x W: i + 1 where point i holds the pixel, else 0.

    A watershed would follow a chain of touching nuclei across the tile; here each label takes levels x steps
    pixels at most, so that what lies further off cannot matter. Where two labels arrive at once the later point in
    reading order wins: this depends on the points' relative places only.
    """
    if len(xy) >= np.iinfo(np.uint16).max:
        raise SlideError(
            f"{len(xy)} points in one tile", "more than can be told apart", "check the image and its mpp"
        )
    labels = np.zeros(scene.inside.shape, np.uint16)
    labels[xy[:, 1], xy[:, 0]] = np.arange(1, len(xy) + 1)
    square, cross = np.ones((3, 3), np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for level in np.linspace(0.95 * SOFT, -1, parameters.levels).astype(np.int64):
        allowed = scene.inside & (scene.order > level)
        for step in range(parameters.steps):
            reached = cv2.dilate(labels, cross if step % 2 else square)
            np.copyto(labels, reached, where=allowed & (labels == 0))
    return labels
