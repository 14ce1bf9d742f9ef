"""Raw label arrays to ids 1..N: everything that had to be mended is counted, what cannot be mended is an error."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.overlaps import compact
from wsi_nuc.datasets.record import DataError, Int32
from wsi_nuc.types import Bool, Int64

Raw = npt.NDArray[Any]
_FAR = 1 << 53  # floats above this do not hold every integer


def clean_labels(raw: Raw, where: object, repairs: Counter[str]) -> tuple[Int32, Int64]:
    """The label image with ids 1..N in the order of the old ids, and the old ids.

    Holes (background enclosed by one nucleus) are filled. Nuclei in several pieces are kept as they are, since
    which piece is meant is not ours to say, and counted.
    """
    labels = _integers(raw, where, repairs)
    rows, ids = compact(labels)
    if len(ids) and ids[-1] != len(ids):
        repairs["images with non-consecutive ids"] += 1
    if len(ids) and ids[-1] > 65535:
        repairs["images with ids over 65535"] += 1
    fill_holes(rows, repairs)
    pieces = fragmented(rows)
    if pieces:
        repairs["nuclei in several pieces (kept)"] += pieces
    return rows, ids


def _integers(raw: Raw, where: object, repairs: Counter[str]) -> Raw:
    if raw.ndim != 2:
        raise DataError(where, f"labels have shape {raw.shape}", "give one id a pixel: height x width")
    if raw.dtype.kind == "b":
        raise DataError(where, "is a yes/no mask, not instance labels", "put it into masks/ as foreground")
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all() or (raw != np.floor(raw)).any() or (np.abs(raw) > _FAR).any():
            raise DataError(where, f"{raw.dtype} labels hold values that are no integers", "save integer ids")
        repairs["images with labels stored as floats"] += 1
        raw = raw.astype(np.int64)
    if raw.dtype.kind not in "iu":
        raise DataError(where, f"labels of type {raw.dtype} are no ids", "save integer ids")
    if raw.size and raw.min() < 0:
        raise DataError(where, f"has the negative id {raw.min()}", "use 0 for background and ids from 1")
    return raw


def fill_holes(labels: Int32, repairs: Counter[str]) -> None:
    """Give background that is enclosed by a single nucleus to it, in place."""
    import cv2

    number, patch = cv2.connectedComponents((labels == 0).astype(np.uint8), connectivity=4)
    low, high = np.full(number, np.iinfo(np.int32).max), np.zeros(number, np.int32)
    # A patch that reaches the border of the image may go on outside: it is no hole.
    closed = np.arange(number) > 0
    closed[np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]])] = False
    for axis in (0, 1):
        here, there = (patch, labels) if axis == 0 else (patch.T, labels.T)
        for p, neighbour in ((here[1:], there[:-1]), (here[:-1], there[1:])):
            edge = (p > 0) & (neighbour > 0)
            np.minimum.at(low, p[edge], neighbour[edge])
            np.maximum.at(high, p[edge], neighbour[edge])
    holes = closed & (low == high)
    if holes.any():
        inside = holes[patch] & (labels == 0)
        labels[inside] = low[patch[inside]]
        repairs["holes filled"] += int(holes.sum())


def fragmented(labels: Int32) -> int:
    """How many nuclei consist of pieces that do not touch, corners included."""
    import cv2
    from scipy import ndimage

    boxes = enumerate(ndimage.find_objects(labels), start=1)
    crops = [(labels[box] == i).astype(np.uint8) for i, box in boxes if box is not None]
    return sum(cv2.connectedComponents(crop, connectivity=8)[0] > 2 for crop in crops)


def components(mask: Bool) -> Int32:
    """Label image of the connected parts (sides only) of a foreground."""
    import cv2

    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[1], np.int32)


def types_of(labels: Int32, type_map: Raw, classes: int, where: object, repairs: Counter[str]) -> Int64:
    """Class index of each id by the majority of its pixels in `type_map` (0 = not said, v = class v - 1)."""
    if type_map.shape != labels.shape:
        raise DataError(where, f"types are {type_map.shape} and labels {labels.shape} pixels", "export both alike")
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
    # A pixel without type (a filled hole, say) has no vote as long as another pixel of the nucleus has one.
    votes = votes[1:]
    votes[:, 0] = votes[:, 1:].sum(axis=1) == 0
    _count(repairs, "nuclei of mixed type (majority taken)", ((votes > 0).sum(axis=1) > 1).sum())
    types: Int64 = np.asarray(votes.argmax(axis=1), np.int64) - 1
    _count(repairs, "nuclei without type", (types < 0).sum())
    return types


def _count(repairs: Counter[str], what: str, number: Any) -> None:
    if number:
        repairs[what] += int(number)
