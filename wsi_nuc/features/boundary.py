"""How sharply a nucleus ends: haematoxylin on both sides of points along its outline."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_nuc.features.pixels import OD, Int16
from wsi_nuc.rings import Rings
from wsi_nuc.types import Float64

POINTS = 32
STEP_UM = 1.0

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
