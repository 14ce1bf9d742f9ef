"""Nuclei of a crop: the parts that a cut or a warp leaves, and a point inside each."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wsi_nuc.datasets.record import Int32
from wsi_nuc.types import Bool, Float64, Int64

Middle = Callable[[Bool], tuple[float, float]]
LEAST_PX = 12  # a smaller piece teaches nothing


def pieces(mask: npt.NDArray[np.uint16]) -> tuple[Int32, Int64]:
    """Each connected piece of a nucleus with an id of its own, 1..N, and the id of its nucleus.

    Shuffled and mirrored parts of a nucleus lie apart, so one point cannot stand for all of them.
    """
    labels, nuclei = np.zeros(mask.shape, np.int32), []
    for i, box in enumerate(ndimage.find_objects(mask.astype(np.int32)), start=1):
        if box is None:
            continue
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (mask[box] == i).astype(np.uint8), connectivity=8
        )
        for part in range(1, count):
            if stats[part, cv2.CC_STAT_AREA] >= LEAST_PX:
                nuclei.append(i)
                labels[box][parts == part] = len(nuclei)
    return labels, np.array(nuclei, np.int64)


def left_whole(mask: npt.NDArray[np.uint16]) -> tuple[Int32, Int64]:
    """As `pieces`, but all parts of a nucleus keep one id."""
    nuclei = np.unique(mask[mask > 0])
    return (np.searchsorted(nuclei, mask) * (mask > 0) + (mask > 0)).astype(np.int32), nuclei.astype(np.int64)


def centres(labels: Int32, middle: Middle | None = None) -> Float64:
    """N x 2: the `middle` of each id (the centre of mass, unless another is given) or, if that lies outside of the
    nucleus, its innermost pixel."""
    points = []
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == i
        cx, cy = (middle or centre_of_mass)(inside)
        if not inside[round(cy), round(cx)]:
            depth = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
            cy, cx = (float(i) for i in np.unravel_index(int(depth.argmax()), depth.shape))
        points.append((cx + box[1].start + 0.5, cy + box[0].start + 0.5))
    return np.array(points, np.float64).reshape(-1, 2)


def centre_of_mass(inside: Bool) -> tuple[float, float]:
    """x and y of an h x w mask; the first pixel's centre lies at 0."""
    y, x = np.nonzero(inside)
    return float(x.mean()), float(y.mean())


def centre_of_contour(inside: Bool) -> tuple[float, float]:
    """The same of the area within the longest outline, rounded to whole pixels. A line of pixels encloses none."""
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(map(cv2.moments, outlines), key=lambda moments: moments["m00"])
    if not largest["m00"]:
        return centre_of_mass(inside)
    x, y = (round(largest[sum_of] / largest["m00"]) for sum_of in ("m10", "m01"))
    return float(x), float(y)
