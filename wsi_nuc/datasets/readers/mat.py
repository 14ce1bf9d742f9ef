"""CoNSeP, CPM-17 and Kumar as HoVer-Net's authors distribute them: `Images/`, and `Labels/*.mat` with `inst_map`
and, in CoNSeP, `type_map`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.files import by_stem, read_rgb
from wsi_nuc.datasets.labels import labels_for, types_of
from wsi_nuc.datasets.readers.imagescope import split_of
from wsi_nuc.datasets.record import DataError, Entry, LabelledImage

# CoNSeP's seven types as its paper merges them: other, inflammatory, epithelial (2), spindle-shaped (3).
MERGED = {"consep": (0, 1, 2, 3, 3, 4, 4, 4)}


def recognises(root: Path) -> bool:
    return any(root.glob("**/*.mat"))


def entries(root: Path, card: Card) -> list[Entry]:
    listed = []
    for mat in sorted(root.glob("**/*.mat")):
        folders = [mat.parent, mat.parent.parent / "Images", mat.parent.parent / "images"]
        image = next((files[mat.stem] for files in map(by_stem, folders) if mat.stem in files), None)
        if image is None:
            raise DataError(mat, "has no image of the same name", "put the images into Images/ beside Labels/")
        listed.append(Entry(mat.stem, partial(load, mat, image, card), mat.stem, split_of(mat, root)))
    return listed


def load(mat: Path, image: Path, card: Card) -> LabelledImage:
    repairs: Counter[str] = Counter()
    rgb = read_rgb(image, repairs)
    arrays = _read(mat)
    labels, _ = labels_for(rgb, arrays["inst_map"], mat, repairs)
    types = None
    if "type_map" in arrays:
        raw = np.asarray(arrays["type_map"])
        table = np.array(MERGED.get(card.name, range(len(card.classes) + 1)))
        if raw.size and (raw.min() < 0 or raw.max() >= len(table)):
            raise DataError(mat, f"holds type {raw.max()} of {len(table) - 1}", "name all classes in dataset.json")
        types = types_of(labels, table[raw.astype(np.int64)], len(card.classes), mat, repairs)
    return LabelledImage(
        mat.stem, rgb, labels, types, mpp=card.mpp, classes=card.classes, source=card.name, repairs=repairs
    )


def _read(mat: Path) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        arrays: dict[str, Any] = loadmat(mat)
    except NotImplementedError as error:
        raise DataError(mat, "is a version 7.3 file", "save it with -v7 in MATLAB") from error
    except (OSError, ValueError, TypeError, MatReadError) as error:
        raise DataError(mat, f"is not a MATLAB file ({error})", "download it again") from error
    if "inst_map" not in arrays:
        names = ", ".join(name for name in arrays if not name.startswith("__"))
        raise DataError(mat, f"has no inst_map, only {names or 'nothing'}", "use the instance labels")
    return arrays
