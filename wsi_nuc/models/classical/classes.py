"""A class from the look of a mask: a rule of thumb, not a diagnosis.

A softmax over numbers a reader can picture: lymphocytes are small, round and stand out from their surroundings;
fibroblasts are elongated; epithelial nuclei are large. The weights were fitted to 21 labelled colon images and say
little elsewhere.
"""

from __future__ import annotations

import numpy as np

from wsi_nuc.models.classical.masks import Shapes
from wsi_nuc.models.classical.settings import MPP
from wsi_nuc.types import Float32, Float64


def features(found: Shapes) -> Float64:
    """N x 4, in the order of `parameters.FEATURES`, each about -2..2."""
    area_um2 = np.maximum(found.area_px, 1) * MPP**2
    columns = [
        np.ones(len(area_um2)),
        np.log2(area_um2 / 32),
        np.log2(found.elongation),
        found.excess - 0.5,
    ]
    return np.stack(columns, axis=1)


def class_probabilities(found: Shapes, weights: Float64) -> Float32:
    """N x C, rows sum to 1. Summed column by column, so that a row does not depend on how many there are."""
    numbers = features(found)
    logits = sum(numbers[:, k : k + 1] * weights[None, :, k] for k in range(numbers.shape[1]))
    exponents = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)
