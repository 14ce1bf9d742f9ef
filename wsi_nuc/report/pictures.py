"""The pictures of a page, as text that stands in it: the slide, density maps, and single nuclei."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import SlideError, StorageError
from wsi_nuc.report.figures import Example
from wsi_nuc.store.reading import read_thumbnail
from wsi_nuc.types import Box, Float64, SlideSource, UInt8

EDGE_PX, MAP_PX, NUCLEUS_PX = 900, 320, 112
# What the picture of a nucleus shows at least, and around a large one.
FIELD_UM, AROUND = 28.0, 1.6
SHIFT = 4
_GREEN, _RED = (40, 220, 40), (230, 40, 40)


def data_uri(rgb: UInt8, kind: str = ".jpg", quality: int = 82) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == ".jpg" else []
    done, packed = cv2.imencode(kind, np.ascontiguousarray(rgb[:, :, ::-1]), options)
    mime = "jpeg" if kind == ".jpg" else "png"
    return f"data:image/{mime};base64,{base64.b64encode(packed.tobytes()).decode()}" if done else ""


def thumbnail(store: Path, edge_px: int | None = None) -> UInt8 | None:
    """H x W x 3, at most `edge_px` wide and high; None if it cannot be read."""
    try:
        rgb = read_thumbnail(store)
    except StorageError:
        return None
    return rgb if edge_px is None else shrunk(rgb, edge_px)


def shrunk(rgb: UInt8, edge_px: int) -> UInt8:
    """At most `edge_px` wide and high."""
    scale = min(1.0, edge_px / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def slide_picture(
    store: Path, width_l0: int, tissue: Sequence[Float64], bad_boxes_l0: Sequence[Sequence[float]]
) -> str:
    """The thumbnail with the outline of the tissue in green and what was not looked at in red."""
    rgb = thumbnail(store, EDGE_PX)
    if rgb is None:
        return ""
    scale = rgb.shape[1] / width_l0
    for ring in tissue:
        cv2.polylines(rgb, [fixed_points(ring * scale)], True, _GREEN, 1, cv2.LINE_AA, SHIFT)
    for x0, y0, x1, y1 in bad_boxes_l0:
        low, high = (int(x0 * scale), int(y0 * scale)), (int(np.ceil(x1 * scale)), int(np.ceil(y1 * scale)))
        cv2.rectangle(rgb, low, high, _RED, 2)
    return data_uri(rgb)


def smoothed(density: Float64) -> Float64:
    """h x w, a little: single nuclei should not be seen."""
    return np.asarray(cv2.GaussianBlur(density, (0, 0), 1.0), np.float64)


def density_picture(density: Float64, most: float) -> str:
    """h x w values from 0 to `most` as colours."""
    grey = np.clip(density / max(most, 1e-9) * 255, 0, 255).astype(np.uint8)
    scale = MAP_PX / max(grey.shape)
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    large = cv2.resize(grey, size, interpolation=cv2.INTER_NEAREST)
    return data_uri(np.asarray(cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS)[:, :, ::-1], np.uint8), ".png")


def nucleus_picture(source: SlideSource, mpp: float, example: Example) -> str:
    """The nucleus in the middle of its surroundings, outlined; "" where the slide cannot be read."""
    low, high = example.ring_l0.min(0), example.ring_l0.max(0)
    half = max(FIELD_UM / mpp, AROUND * float((high - low).max())) / 2
    corner = np.floor((low + high) / 2 - half).astype(int)
    edge = max(1, round(2 * half))
    box = Box(int(corner[0]), int(corner[1]), int(corner[0]) + edge, int(corner[1]) + edge)
    try:
        rgb = source.read(0, box).rgb
    except SlideError:
        return ""
    shrinks = edge > NUCLEUS_PX
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(rgb, (NUCLEUS_PX, NUCLEUS_PX), interpolation=how), np.uint8)
    outline = (example.ring_l0 - corner) * (NUCLEUS_PX / edge)
    cv2.polylines(picture, [fixed_points(outline)], True, _GREEN, 1, cv2.LINE_AA, SHIFT)
    return data_uri(picture)


def fixed_points(xy: Float64) -> npt.NDArray[np.int32]:
    """N x 1 x 2 for OpenCV.

    It takes fractions of pixels as whole numbers (see SHIFT) and counts from the middle of a pixel.
    """
    return np.asarray(np.round((xy - 0.5) * 2**SHIFT)[:, None], np.int32)
