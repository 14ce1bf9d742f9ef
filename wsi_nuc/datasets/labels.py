"""Label images with ids 1..N, from raw label arrays or from outlines, and the classes of their nuclei.

What is mended is counted; what cannot be mended is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wsi_nuc.datasets.overlaps import compact
from wsi_nuc.datasets.record import DataError, Int32
from wsi_nuc.rings import Rings, spans
from wsi_nuc.types import Bool, Box, Float64, Int64, UInt8

_FAR = 1 << 53  # above, not every integer is a float
Raw = npt.NDArray[Any]
Outline = Sequence[Float64]
"""The rings of one nucleus; those inside the outer one are holes."""


def labels_for(
    rgb: UInt8, raw: npt.NDArray[np.generic], where: object, repairs: Counter[str]
) -> tuple[Int32, Int64]:
    """Clean labels of the same size as the image, and their old ids."""
    if raw.shape[:2] != rgb.shape[:2]:
        raise DataError(
            where, f"labels are {raw.shape[:2]} and the image {rgb.shape[:2]} pixels", "export both at one size"
        )
    return clean_labels(raw, where, repairs)


def clean_labels(raw: Raw, where: object, repairs: Counter[str]) -> tuple[Int32, Int64]:
    """The label image with ids 1..N in the order of the old ids, and the old ids.

    Holes (background enclosed by one nucleus) are filled. Nuclei in several pieces are counted and kept as they
    are, since nothing says which piece is meant.
    """
    labels = _integers(raw, where, repairs)
    rows, ids = compact(labels)
    if len(ids) and ids[-1] != len(ids):
        repairs["images with non-consecutive ids"] += 1
    if len(ids) and ids[-1] > 65535:
        repairs["images with ids over 65535"] += 1
    fill_holes(rows, repairs)
    _count(repairs, "nuclei in several pieces (kept)", fragmented(rows))
    return rows, ids


def _integers(raw: Raw, where: object, repairs: Counter[str]) -> Raw:
    if raw.ndim != 2:
        raise DataError(where, f"labels have shape {raw.shape}", "give one id per pixel: height x width")
    if raw.dtype.kind == "b":
        raise DataError(where, "is a yes/no mask, not instance labels", "put it into masks/ as foreground")
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all() or (raw != np.floor(raw)).any() or (np.abs(raw) > _FAR).any():
            raise DataError(where, f"{raw.dtype} labels hold values that are not integers", "save integer ids")
        repairs["images with labels stored as floats"] += 1
        raw = raw.astype(np.int64)
    if raw.dtype.kind not in "iu":
        raise DataError(where, f"labels of type {raw.dtype} are not ids", "save integer ids")
    if raw.size and raw.min() < 0:
        raise DataError(where, f"has the negative id {raw.min()}", "use 0 for background and ids from 1")
    return raw


def fill_holes(labels: Int32, repairs: Counter[str]) -> None:
    """Give background that is enclosed by a single nucleus to this nucleus, in place."""
    number, patch = cv2.connectedComponents((labels == 0).astype(np.uint8), connectivity=4)
    low, high = np.full(number, np.iinfo(np.int32).max), np.zeros(number, np.int32)
    # A patch at the border of the image may go on outside of it, so it is not a hole.
    closed = np.arange(number) > 0
    closed[np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]])] = False
    for axis in (0, 1):
        patches, ids = (patch, labels) if axis == 0 else (patch.T, labels.T)
        for beside, neighbour in ((patches[1:], ids[:-1]), (patches[:-1], ids[1:])):
            edge = (beside > 0) & (neighbour > 0)
            np.minimum.at(low, beside[edge], neighbour[edge])
            np.maximum.at(high, beside[edge], neighbour[edge])
    holes = closed & (low == high)
    if holes.any():
        inside = holes[patch] & (labels == 0)
        labels[inside] = low[patch[inside]]
        repairs["holes filled"] += int(holes.sum())


def fragmented(labels: Int32) -> int:
    """How many nuclei consist of pieces that do not even touch at a corner."""
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    crops = [(labels[box] == i).astype(np.uint8) for i, box in boxes if box is not None]
    return sum(cv2.connectedComponents(crop, connectivity=8)[0] > 2 for crop in crops)


def components(mask: Bool) -> Int32:
    """Label image of the parts of a foreground that are connected by sides."""
    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[1], np.int32)


def types_of(labels: Int32, type_map: Raw, classes: int, where: object, repairs: Counter[str]) -> Int64:
    """Class index of each id by the majority of its pixels in `type_map` (0 = no class, v = class v - 1)."""
    if type_map.shape != labels.shape:
        raise DataError(
            where, f"types are {type_map.shape} and labels {labels.shape} pixels", "export both at one size"
        )
    values = _integers(type_map, where, Counter())
    top, n = int(values.max(initial=0)), int(labels.max(initial=0))
    if top > classes:
        raise DataError(
            where, f"holds type {top}, but {classes} classes are named", "name all classes in dataset.json"
        )
    votes = np.bincount(
        labels.ravel().astype(np.int64) * (classes + 1) + values.ravel().astype(np.int64),
        minlength=(n + 1) * (classes + 1),
    ).reshape(n + 1, classes + 1)
    if classes and votes[0, 1:].any():
        repairs["images with types outside nuclei (ignored)"] += 1
    # A pixel without type, such as a filled hole, votes only if no pixel of the nucleus has a type.
    votes = votes[1:]
    votes[:, 0] = votes[:, 1:].sum(axis=1) == 0
    _count(repairs, "nuclei of mixed type (majority taken)", ((votes > 0).sum(axis=1) > 1).sum())
    types: Int64 = np.asarray(votes.argmax(axis=1), np.int64) - 1
    _count(repairs, "nuclei without type", (types < 0).sum())
    return types


def _count(repairs: Counter[str], what: str, number: Any) -> None:
    if number:
        repairs[what] += int(number)


def labels_of_polygons(
    polygons: Sequence[Outline], types: Int64, rgb: UInt8, where: object, repairs: Counter[str]
) -> tuple[Int32, Int64]:
    """Labels and types of outlines in image pixels. An overlap goes to the later outline and is counted. So are
    outlines without a pixel of their own (outside, too thin, or covered by others)."""
    for i, outline in enumerate(polygons):
        if not all(len(ring) >= 3 and np.isfinite(ring).all() for ring in outline):
            raise DataError(
                where, f"outline {i + 1} has under three or unreadable vertices", "remove or redraw it"
            )
    raw, contested = filled(polygons, rgb.shape[1], rgb.shape[0])
    if contested:
        repairs["pixels claimed by two nuclei"] += contested
    cleaned: Counter[str] = Counter()
    labels, ids = clean_labels(raw, where, cleaned)
    # These ids were made here, so a gap only means an outline without a pixel.
    cleaned.pop("images with non-consecutive ids", None)
    cleaned.pop("images with ids over 65535", None)
    repairs.update(cleaned)
    if len(polygons) > len(ids):
        repairs["outlines without a pixel (dropped)"] += len(polygons) - len(ids)
    return labels, types[ids - 1]


def filled(polygons: Sequence[Outline], width: int, height: int) -> tuple[Int32, int]:
    """Label image, with id i + 1 for outline i, and how many pixels lie in two outlines (the later has them)."""
    rings = Rings.of([ring for outline in polygons for ring in outline])
    group, _ = spans(np.array([len(outline) for outline in polygons], np.int64))
    pixel, owner = rings.covered(Box(0, 0, width, height), group)
    labels = np.zeros(height * width, np.int32)
    labels[pixel] = owner + 1
    return labels.reshape(height, width), len(pixel) - int(np.count_nonzero(labels))


def class_index(name: str, classes: Sequence[str], where: object) -> int:
    """Index of a class name; -1 for an empty one."""
    if not name:
        return -1
    if name not in classes:
        raise DataError(
            where, f"class {name!r} is not among {', '.join(classes) or '(none)'}", "name it in dataset.json"
        )
    return list(classes).index(name)


def inside(xy: Float64, types: Int64 | None, rgb: UInt8, repairs: Counter[str]) -> tuple[Float64, Int64 | None]:
    """The points within the image. Points outside are dropped and counted."""
    kept = (xy >= 0).all(axis=1) & (xy < (rgb.shape[1], rgb.shape[0])).all(axis=1)
    if not kept.all():
        repairs["points outside the image (dropped)"] += int((~kept).sum())
    return xy[kept], None if types is None else types[kept]
