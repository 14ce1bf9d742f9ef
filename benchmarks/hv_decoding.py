"""From maps to nuclei: our decoder against HoVer-Net's published post-processing, on one core and the same maps.

The published one is written here from its description: scipy and scikit-image, then a loop over the nuclei for
box, contour, centre and class. Its time, and that of its map of nuclei alone, is compared with `decode`, which
gives scores and classes too; times are CPU times. For the question whether the nuclei are the same it gets our
fixed scale in place of the least and greatest value of the tile. The maps are those of a perfect network for the
nuclei of a synthetic slide, blurred and noisy.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from benchmarks.table import Row, interleaved, print_rows
from tests.models.hv_scenes import drawn, seen
from wsi_nuc.models.hv import HvMaps, HvSettings, decode
from wsi_nuc.models.instances import InstancesLook, Labels
from wsi_nuc.types import Bool, Float64

EDGE_PX, CLASSES, STRIDE = 1000, 5, 4
SOBEL_PX = 21
PER_PIXEL = 2.0**39  # what OpenCV's Sobel kernel of 21 px makes of a map that rises by 1 per pixel


def published(maps: HvMaps, types: Labels, fixed: tuple[float, float] | None = None) -> dict[int, Any]:
    """What HoVer-Net says of each nucleus. `types`: the class of each pixel."""
    return described(published_labels(maps, fixed), types)


def published_labels(maps: HvMaps, fixed: tuple[float, float] | None = None) -> Labels:
    """`fixed`: the scale of gradients; None: the least and the greatest value, as published."""
    from skimage.segmentation import watershed

    solid = without_specks(ndimage.label(maps.foreground >= 0.5)[0]) > 0
    across, down = maps.hv if fixed else (stretched(plane) for plane in maps.hv)
    edges = [
        edge(cv2.Sobel(across, cv2.CV_64F, 1, 0, ksize=SOBEL_PX), fixed),
        edge(cv2.Sobel(down, cv2.CV_64F, 0, 1, ksize=SOBEL_PX), fixed),
    ]
    overall = np.maximum(np.maximum(*edges) - ~solid, 0)
    energy = -cv2.GaussianBlur((1.0 - overall) * solid, (3, 3), 0)
    marker = ndimage.binary_fill_holes(solid & (overall < 0.4)).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    marker = without_specks(ndimage.label(cv2.morphologyEx(marker, cv2.MORPH_OPEN, kernel))[0])
    return np.asarray(watershed(energy, markers=marker, mask=solid), np.int32)


def without_specks(labels: Labels) -> Labels:
    from skimage.morphology import remove_small_objects

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its argument gets another name
        return np.asarray(remove_small_objects(labels, min_size=10))


def stretched(plane: Any) -> Any:
    return cv2.normalize(plane, None, alpha=0, beta=1, norm_type=cv2.NORM_MINMAX, dtype=cv2.CV_32F)


def edge(gradient: Float64, fixed: tuple[float, float] | None) -> Any:
    if fixed is None:
        return 1 - stretched(gradient)
    lowest, highest = fixed
    return np.clip((highest - gradient / PER_PIXEL) / (highest - lowest), 0, 1)


def described(labels: Labels, types: Labels) -> dict[int, Any]:
    """Box, contour, centre and class of each nucleus, one after the other."""
    nuclei = {}
    for number in np.unique(labels)[1:].tolist():
        mask = labels == number
        (y0, y1), (x0, x1) = limits(mask.any(axis=1)), limits(mask.any(axis=0))
        crop = mask[y0:y1, x0:x1].astype(np.uint8)
        moments = cv2.moments(crop)
        contour = cv2.findContours(crop, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0][0].squeeze()
        if contour.ndim != 2 or len(contour) < 3:
            continue
        centre = moments["m10"] / moments["m00"] + x0, moments["m01"] / moments["m00"] + y0
        kinds, count = np.unique(types[y0:y1, x0:x1][crop > 0], return_counts=True)
        nuclei[number] = (x0, y0, x1, y1), np.add(contour, (x0, y0)), centre, kinds[count.argmax()]
    return nuclei


def limits(seen: Bool) -> tuple[int, int]:
    places = np.flatnonzero(seen)
    return int(places[0]), int(places[-1]) + 1


def same_share(ours: Labels, theirs: Labels, iou: float = 0.99) -> float:
    """The share of their nuclei, and of ours, whichever is smaller, that have one of the other's above `iou`."""
    pair = np.zeros((ours.max() + 1, theirs.max() + 1))
    np.add.at(pair, (ours.ravel(), theirs.ravel()), 1)
    good = (pair / (pair.sum(axis=1)[:, None] + pair.sum(axis=0) - pair))[1:, 1:] > iou
    return float(min(good.any(axis=0).mean(), good.any(axis=1).mean()))


def measure(small: bool = False) -> list[Row]:
    cv2.setNumThreads(1)
    settings = HvSettings(largest_px=EDGE_PX, least_px=1)  # the published one drops nothing
    maps = seen(drawn(256 if small else EDGE_PX, seed=7 if small else 4), classes=CLASSES, stride=STRIDE)
    cells = maps.class_probs.argmax(axis=0).astype(np.int32)
    height, width = maps.foreground.shape
    types = np.repeat(np.repeat(cells, STRIDE, axis=0), STRIDE, axis=1)[:height, :width]
    ours, theirs, theirs_labels, look = interleaved(
        lambda: decode([maps], settings),
        lambda: published(maps, types),
        lambda: published_labels(maps),
        lambda: list(InstancesLook("hv", decode([maps], settings)).masks([0]).get()),
        rounds=1 if small else 9,
        clock=time.process_time,
    )
    labels = decode([maps], settings).labels[0]
    fixed = published_labels(maps, settings.gradients)
    same, close = same_share(labels, fixed), same_share(labels, fixed, iou=0.9)
    what = f"decode maps of {width} x {height} px, {labels.max()} nuclei"
    return [
        Row(what, ours * 1e3, "ms"),
        Row("HoVer-Net's post-processing, time over ours", theirs / ours, "x", ">= 5 x", theirs >= 5 * ours),
        Row("its map of nuclei alone, time over ours", theirs_labels / ours, "x"),
        Row("decode, and a point in each nucleus", look * 1e3, "ms"),
        Row("nuclei that both find, IoU > 0.99", same, "", ">= 0.95", same >= 0.95, always=True),
        Row("nuclei that both find, IoU > 0.9", close, "", ">= 0.99", close >= 0.99, always=True),
    ]


if __name__ == "__main__":
    print_rows(measure())
