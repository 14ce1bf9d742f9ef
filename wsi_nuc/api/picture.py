"""The picture of a result: nuclei over the slide, one colour per class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from wsi_nuc.exporting.registry import COLOURS
from wsi_nuc.report.pictures import SHIFT, fixed_points
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.types import UInt8

# Outlines of smaller nuclei are not drawn but filled.
LEAST_PX = 4.0


def drawn(store: Path, rgb: UInt8, size: tuple[int, int], px: int) -> UInt8:
    """The nuclei of the store on a picture of the whole slide (H x W x 3), whose longer side becomes `px`.

    `size`: width and height of the slide in level-0 pixels.
    """
    scale = px / max(size)
    target = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    smaller = target[0] < rgb.shape[1]
    canvas = cv2.resize(rgb, target, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    with NucleiReader(store, ["class_id"]) as reader:
        for rows in reader.each():
            points = fixed_points(rows.rings.xy * scale)
            outlines = np.split(points, rows.rings.offsets[1:-1])
            extent = np.median((rows.rings.bounds_l0[:, 2:] - rows.rings.bounds_l0[:, :2]).max(axis=1)) * scale
            for label in np.unique(rows.columns["class_id"]).tolist():
                chosen = [outlines[row] for row in np.flatnonzero(rows.columns["class_id"] == label)]
                if extent < LEAST_PX:
                    cv2.fillPoly(canvas, chosen, colour(label), cv2.LINE_8, SHIFT)
                else:
                    cv2.polylines(canvas, chosen, True, colour(label), 1, cv2.LINE_AA, SHIFT)
    return np.asarray(canvas, np.uint8)


def colour(label: int) -> tuple[int, int, int]:
    """Red, green and blue of the class of this number."""
    return COLOURS[label % len(COLOURS)]


def encoded(rgb: UInt8, suffix: str) -> bytes:
    """As a file with this suffix."""
    return cv2.imencode(suffix, rgb[:, :, ::-1])[1].tobytes()
