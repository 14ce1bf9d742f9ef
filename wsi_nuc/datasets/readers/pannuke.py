"""PanNuke: three folds of NumPy arrays, as the splits `fold1` to `fold3`."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.files import as_rgb
from wsi_nuc.datasets.labels import labels_for
from wsi_nuc.datasets.overlaps import compact
from wsi_nuc.datasets.record import DataError, Entry, LabelledImage
from wsi_nuc.types import Int64

_FOLD = re.compile(r"fold[ _-]?(\d)", re.IGNORECASE)


def recognises(root: Path) -> bool:
    return bool(_image_files(root))


def _image_files(root: Path) -> list[Path]:
    return sorted(root.glob("**/images.npy"))


def entries(root: Path, card: Card) -> list[Entry]:
    listed = []
    for images in _image_files(root):
        fold = _FOLD.search(str(images.relative_to(root.parent)))
        if fold is None:
            raise DataError(
                images, "does not lie in a folder named fold1, fold2 or fold3", "keep PanNuke's own folders"
            )
        masks, types = _beside(images, "masks"), _beside(images, "types")
        tissues = [str(tissue) for tissue in _array(types)]
        if not len(_array(images)) == len(_array(masks)) == len(tissues):
            counts = f"{len(_array(images))} images, {len(_array(masks))} masks, {len(tissues)} tissues"
            raise DataError(images, counts, "unpack the fold again")
        for i, tissue in enumerate(tissues):
            name = f"{fold[1]}_{i}"
            listed.append(Entry(name, partial(load, name, images, masks, i, card), tissue, f"fold{fold[1]}"))
    return listed


def _beside(images: Path, kind: str) -> Path:
    """masks.npy or types.npy, which lies beside images.npy or in a parallel folder of its own."""
    parallel = [kind if part == "images" else part for part in images.parts[:-1]]
    for folder in (images.parent, Path(*parallel)):
        if (folder / f"{kind}.npy").is_file():
            return folder / f"{kind}.npy"
    raise DataError(images, f"has no {kind}.npy beside it", "unpack the whole fold")


@cache
def _array(path: Path) -> npt.NDArray[Any]:
    # Mapped, since the float64 masks of a fold take 6 GB. Pickled arrays are refused.
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", "unpack the fold again") from error
    return array


def load(name: str, images: Path, masks: Path, i: int, card: Card) -> LabelledImage:
    repairs: Counter[str] = Counter()
    where = f"{images}[{i}]"
    rgb = as_rgb(np.asarray(_array(images)[i]), where, repairs)
    raw, kinds = merge_channels(np.asarray(_array(masks)[i]), len(card.classes), f"{masks}[{i}]", repairs)
    labels, ids = labels_for(rgb, raw, where, repairs)
    return LabelledImage(
        name, rgb, labels, kinds[ids - 1], mpp=card.mpp, classes=card.classes, source=card.name, repairs=repairs
    )


def merge_channels(
    channels: npt.NDArray[Any], classes: int, where: object, repairs: Counter[str]
) -> tuple[npt.NDArray[np.int32], Int64]:
    """A label image from one channel of ids per class (a last channel, background, is left out), and the class of
    each id. Where two classes claim a pixel, the later class has it, as in the authors' code."""
    if channels.ndim != 3 or channels.shape[2] not in (classes, classes + 1):
        raise DataError(where, f"has shape {channels.shape} for {classes} classes", "give one channel per class")
    merged = np.zeros(channels.shape[:2], np.int32)
    kinds: list[int] = []
    for c in range(classes):
        channel = channels[:, :, c]
        if (channel != np.floor(channel)).any() or channel.min() < 0:
            raise DataError(where, f"channel {c} holds values that are not ids", "unpack the fold again")
        rows, ids = compact(channel.astype(np.int64))
        twice = int(((rows > 0) & (merged > 0)).sum())
        if twice:
            repairs["pixels claimed by two nuclei"] += twice
        merged[rows > 0] = rows[rows > 0] + len(kinds)
        kinds += [c] * len(ids)
    covered = len(kinds) - len(np.unique(merged[merged > 0]))
    if covered:
        repairs["nuclei covered by others (dropped)"] += covered
    return merged, np.array(kinds, np.int64)
