"""Small inputs that are the same bytes on every machine: whole numbers only, and noise from a hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.models.nets import tiny_settings
from wsi_nuc.models.promptnucseg.net import expected_shapes
from wsi_nuc.models.promptnucseg.settings import Settings
from wsi_nuc.types import Box, Tile, TileBatch, UInt8

NUCLEUS, TISSUE = (95, 60, 130), (215, 165, 200)
SPACING = 24


def noise(name: str, count: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.frombuffer(hashlib.shake_256(name.encode()).digest(2 * count), "<u2")


def image(height: int, width: int) -> UInt8:
    """Dark ellipses on pink, one in every cell of a grid, none across the border of its cell."""
    rgb = np.empty((height, width, 3), np.int64)
    rgb[:] = TISSUE
    y, x = np.mgrid[:SPACING, :SPACING] * 2 + 1
    rows, columns = height // SPACING, width // SPACING
    shapes = noise("shapes", rows * columns * 4).reshape(rows, columns, 4).astype(np.int64)
    for row in range(rows):
        for column in range(columns):
            dx, dy, a, b = shapes[row, column]
            a, b = 9 + a % 9, 9 + b % 9  # half axes in half pixels
            inside = ((x - SPACING - dx % 5) * b) ** 2 + ((y - SPACING - dy % 5) * a) ** 2 <= (a * b) ** 2
            rgb[row * SPACING :, column * SPACING :][:SPACING, :SPACING][inside] = NUCLEUS
    rgb += noise("pixels", height * width).reshape(height, width, 1).astype(np.int64) % 13 - 6
    return np.clip(rgb, 0, 255).astype(np.uint8)


def slide(path: Path) -> Path:
    """Several tiles of the classical model, if opened at 0.4 um per pixel, which adds resampling to the test."""
    Image.fromarray(image(720, 1560)).save(path)
    return path


def tile(edge: int = 256) -> TileBatch:
    box = Box(0, 0, edge, edge)
    return TileBatch(image(edge, edge)[None], (Tile(0, box, box),))


def cells(path: Path) -> Path:
    """QuPath's detections: simple shapes, and one that crosses itself and has to be mended."""
    shapes = [[[x, 20], [x + 12, 20], [x + 12, 30 + x % 7], [x, 32], [x, 20]] for x in range(20, 600, 40)]
    shapes.append([[100, 100], [120, 120], [120, 100], [100, 120], [100, 100]])
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "detection", "classification": {"name": "ab"[i % 2]}},
        }
        for i, ring in enumerate(shapes)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def promptnucseg() -> tuple[Settings, dict[str, torch.Tensor]]:
    """A model whose weights come from a hash, of a size that keeps activations at about 1."""
    settings = tiny_settings(windows=1, class_token=True)
    return settings, {name: _weights(name, shape) for name, shape in expected_shapes(settings).items()}


def _weights(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return torch.ones(shape)
    count = int(np.prod(shape))
    values = noise(name, count).astype(np.float32) / np.float32(32768) - np.float32(1)
    fan_in = max(1, count // shape[0]) if len(shape) > 1 else 4
    return torch.from_numpy((values * np.float32((3 / fan_in) ** 0.5)).reshape(shape))
