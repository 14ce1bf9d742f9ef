"""Small pictures of published slides, as data that a page carries within itself."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.safezarr import read_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import layout

EDGE_PX, QUALITY = 168, 72
MOST_VALUES = 2**25


def data_uri(store: Path) -> str:
    """The slide's thumbnail at most `EDGE_PX` wide and high, "" where it cannot be read."""
    try:
        planes = read_array(contents(store) / layout.THUMBNAIL / "s0", MOST_VALUES)
    except (OSError, StorageError, ValueError, KeyError):
        return ""
    rgb = np.moveaxis(planes, 0, 2)
    scale = min(1.0, EDGE_PX / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = cv2.resize(np.ascontiguousarray(rgb[:, :, ::-1]), size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}" if done else ""
