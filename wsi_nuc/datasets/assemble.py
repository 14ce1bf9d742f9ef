"""Raw parts of a labelled image to the record, checked against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.labels import clean_labels
from wsi_nuc.datasets.record import DataError, Int32
from wsi_nuc.rings import Rings, spans
from wsi_nuc.types import Box, Float64, Int64, UInt8

Outline = Sequence[Float64]
"""The rings of one nucleus; those inside the outer one are holes."""


def labels_for(
    rgb: UInt8, raw: npt.NDArray[np.generic], where: object, repairs: Counter[str]
) -> tuple[Int32, Int64]:
    """Clean labels of the image's own size, and the ids that they had."""
    if raw.shape[:2] != rgb.shape[:2]:
        raise DataError(
            where, f"labels are {raw.shape[:2]} and the image {rgb.shape[:2]} pixels", "export both at one size"
        )
    return clean_labels(raw, where, repairs)


def labels_of_polygons(
    polygons: Sequence[Outline], types: Int64, rgb: UInt8, where: object, repairs: Counter[str]
) -> tuple[Int32, Int64]:
    """Labels and types of outlines in image pixels. Overlaps go to the later one and are counted, and so are
    outlines that own no pixel (outside, too thin, or covered by others)."""
    for i, outline in enumerate(polygons):
        if not all(len(ring) >= 3 and np.isfinite(ring).all() for ring in outline):
            raise DataError(
                where, f"outline {i + 1} has under three or unreadable vertices", "remove or redraw it"
            )
    raw, contested = filled(polygons, rgb.shape[1], rgb.shape[0])
    if contested:
        repairs["pixels claimed by two nuclei"] += contested
    found: Counter[str] = Counter()
    labels, ids = clean_labels(raw, where, found)
    # Ids are ours here, so gaps only mean outlines without a pixel.
    found.pop("images with non-consecutive ids", None)
    found.pop("images with ids over 65535", None)
    repairs.update(found)
    if len(polygons) > len(ids):
        repairs["outlines without a pixel (dropped)"] += len(polygons) - len(ids)
    return labels, types[ids - 1]


def filled(polygons: Sequence[Outline], width: int, height: int) -> tuple[Int32, int]:
    """Label image, id i + 1 for outline i, and how many pixels two of them claimed (the later one has them)."""
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
    """The points within the image; those outside are dropped and counted."""
    kept = (xy >= 0).all(axis=1) & (xy < (rgb.shape[1], rgb.shape[0])).all(axis=1)
    if not kept.all():
        repairs["points outside the image (dropped)"] += int((~kept).sum())
    return xy[kept], None if types is None else types[kept]
