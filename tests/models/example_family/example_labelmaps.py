"""A model family as another package would bring it: without prompts and weights, with a label map of each tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.instances import Instances, InstancesLook
from wsi_nuc.types import TileBatch

NAME = "example-labelmaps"
ABOUT = "dark spots, as they are connected"


@dataclass(frozen=True, slots=True)
class OPTIONS:
    """Which pixels belong to a nucleus, by their grey value."""

    darkest: int = 0
    """The least grey value of a nucleus."""
    brightest: int = 120
    """The greatest grey value of a nucleus."""


def spec(options: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(
        name=NAME,
        classes=("large", "small"),
        mpp=0.5,
        core_px=256,
        halo_px=72,
        largest_nucleus_px=64,
        margin_px=8,
        batch=2,
        weights_sha256="0" * 64,
    )


def load(device: str, options: Mapping[str, Any]) -> NucleiModel:
    return NucleiModel(spec(options), partial(look, OPTIONS(**options)))


def look(use: OPTIONS, batch: TileBatch) -> InstancesLook:
    labels, large = zip(*(spots(rgb, use) for rgb in batch.rgb), strict=True)
    share = np.concatenate(large).astype(np.float32)
    score = np.full(len(share), 0.9, np.float32)
    return InstancesLook(NAME, Instances(np.stack(labels), score, np.column_stack([share, 1 - share])))


def spots(rgb: Any, use: OPTIONS) -> tuple[Any, Any]:
    """Labels of one tile, and for each spot whether it is large."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    inside = ((grey >= use.darkest) & (grey <= use.brightest)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA]
    extent = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    kept = (area >= 20) & (extent <= 64) & (np.arange(len(area)) > 0)
    table = np.where(kept, np.cumsum(kept), 0)
    return table[labels].astype(np.int32), area[kept] >= 150
