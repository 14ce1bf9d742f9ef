"""A store whose nuclei are known, with measured columns that have every kind of unit and value."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.features.build import publish_nuclei
from tests.store.build import CLASSES
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.store.column_record import Column

# A box of whole pixels, one at halves of pixels far from the corner, and a triangle.
RINGS = (
    np.array([[10, 20], [14, 20], [14, 23], [10, 23]], np.float64),
    np.array([[98765.5, 1000.5], [98775.5, 1000.5], [98775.5, 1010.5], [98765.5, 1010.5]]),
    np.array([[100.015625, 200], [140, 200], [120, 240.984375]]),
)
CLASS_NAMES = ("stroma", "tumour", "immune")
"""Of the three nuclei."""
MEASURED = {
    Column("h_mean", "OD", "haematoxylin", "any number"): np.array([0.1, np.nan, 0.3]),
    Column("gradient_sd", "OD/um", "gradient", "from 0"): np.array([1e-7, 2e12, np.inf]),
    Column("perimeter_um", "um", "length", "above 0"): np.array([3.5, 10, 30]),
    Column("solidity", "", "share of the hull", "0 to 1"): np.array([1, 0.5, 0.25]),
}


def known_nuclei() -> NucleiTable:
    rings = Rings.of(RINGS)
    count, third = len(rings), np.float32(1 / 3)
    probabilities = np.full((count, len(CLASSES)), 0.1, np.float32)
    probabilities[range(count), [CLASSES.index(name) for name in CLASS_NAMES]] = 0.8
    return NucleiTable(
        xy=rings.xy,
        offsets=rings.offsets,
        prompt_xy=rings.areas_and_centres()[1],
        score=np.array([0.9, 0.5, third], np.float32),
        prompt_score=np.array([0.25, 0.5, 0.75], np.float32),
        predicted_iou=np.array([np.nan, 0.5, 0.25], np.float32),
        class_probs=probabilities,
        tile=np.zeros(count, np.int64),
    )


def known_store(out: Path) -> Path:
    return publish_nuclei(out, known_nuclei(), features=MEASURED)
