"""TNBC (Naylor): `Slide_01/01_1.png` and `GT_01/01_1.png`; each slide is a patient.

The ground truth holds ids, or is a yes/no mask. The parts of a mask that are connected by sides are the nuclei.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.files import by_stem, read_array, read_rgb
from wsi_nuc.datasets.labels import components, labels_for
from wsi_nuc.datasets.record import DataError, Entry, LabelledImage


def recognises(root: Path) -> bool:
    return any(root.glob("GT_*/*.png"))


def entries(root: Path, card: Card) -> list[Entry]:
    listed = []
    for folder in sorted(root.glob("GT_*")):
        patient = folder.name.removeprefix("GT_")
        images = by_stem(root / f"Slide_{patient}")
        for stem, labels in by_stem(folder).items():
            if stem not in images:
                raise DataError(labels, f"has no image in Slide_{patient}", "unpack the data set again")
            listed.append(Entry(stem, partial(load, stem, images[stem], labels, card), patient))
    return listed


def load(stem: str, image: Path, path: Path, card: Card) -> LabelledImage:
    repairs: Counter[str] = Counter()
    rgb = read_rgb(image, repairs)
    labels, _ = labels_for(rgb, _ids(read_array(path), repairs), path, repairs)
    return LabelledImage(stem, rgb, labels, mpp=card.mpp, classes=card.classes, source=card.name, repairs=repairs)


def _ids(raw: npt.NDArray[Any], repairs: Counter[str]) -> npt.NDArray[Any]:
    """Ids of grey or colour-coded labels. Alpha is ignored."""
    if raw.ndim == 3:
        codes = raw[:, :, :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        raw = np.unique(codes, return_inverse=True)[1].reshape(codes.shape) if codes.any() else codes
        raw = np.where(codes > 0, raw + 1, 0)
    if len(np.unique(raw[raw > 0])) != 1:
        return raw
    repairs["yes/no masks split into connected parts"] += 1
    return components(raw > 0)
