"""Nuclei of a crop: the parts that a cut or a warp leaves, and a point inside each."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wsi_nuc.datasets.record import Int32
from wsi_nuc.evaluation.painting import largest_contour
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


def centre_of_mass(inside: Bool) -> tuple[float, float]:
    """x and y of an h x w mask; the first pixel's centre lies at 0."""
    y, x = np.nonzero(inside)
    return float(x.mean()), float(y.mean())


def centre_of_contour(inside: Bool) -> tuple[float, float]:
    """The same of the area within the largest outline, rounded to whole pixels. A line of pixels encloses none."""
    largest = largest_contour(inside.astype(np.uint8))
    if not largest["m00"]:
        return centre_of_mass(inside)
    x, y = (round(largest[sum_of] / largest["m00"]) for sum_of in ("m10", "m01"))
    return float(x), float(y)


def centres(labels: Int32, middle: Middle = centre_of_mass) -> Float64:
    """N x 2: the `middle` of each id or, if that lies outside of the nucleus, its innermost pixel."""
    points = []
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == i
        cx, cy = middle(inside)
        if not inside[round(cy), round(cx)]:
            depth = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
            cy, cx = (float(place) for place in np.unravel_index(int(depth.argmax()), depth.shape))
        points.append((cx + box[1].start + 0.5, cy + box[0].start + 0.5))
    return np.array(points, np.float64).reshape(-1, 2)
