"""Plain folders: `images/` with one or more of `labels/` (instance PNG), `types/`, `points/` (CSV) and `masks/`.

`manifest.csv` is optional. It has the column `id` and any of `split`, `patient` or `series` (what must stay
together) and `mpp`. Instance labels, points and foregrounds are all read here; an image has what its folders hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsi_nuc.datasets.cards import Card
from wsi_nuc.datasets.files import by_stem, read_array, read_rgb, read_rows, xy_of_rows
from wsi_nuc.datasets.labels import class_index, inside, labels_for, types_of
from wsi_nuc.datasets.record import DataError, Entry, LabelledImage
from wsi_nuc.types import Bool, Float64, Int64

_GROUP = ("group", "patient", "series")
_SPLIT = ("split", "orig_split", "official_split")
_MPP = ("mpp", "mpp_approx")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one image."""

    image: Path
    labels: Path | None
    types: Path | None
    points: Path | None
    mask: Path | None


def recognises(root: Path) -> bool:
    return (root / "images").is_dir() and any((root / kind).is_dir() for kind in ("labels", "points", "masks"))


def entries(root: Path, card: Card) -> list[Entry]:
    images = by_stem(root / "images")
    kinds = {kind: by_stem(root / kind) for kind in ("labels", "types", "masks")}
    points = by_stem(root / "points", [".csv"])
    if kinds["types"] and not card.classes:
        raise DataError(root / "types", "its classes have no names", 'write {"classes": [...]} into dataset.json')
    if points and not card.point_classes and not card.classes:
        raise DataError(
            root / "points", "its classes have no names", 'write {"point_classes": [...]} into dataset.json'
        )
    orphans = sorted(set().union(*kinds.values(), points) - set(images))
    if orphans:
        raise DataError(
            root, f"labels without an image: {', '.join(orphans[:5])}", "add the images or remove them"
        )
    rows = _manifest(root, images)
    listed = []
    for stem in rows or images:
        row = rows.get(stem, {})
        files = Files(
            images[stem],
            kinds["labels"].get(stem),
            kinds["types"].get(stem),
            points.get(stem),
            kinds["masks"].get(stem),
        )
        mpp = _number(_first(row, _MPP), root / "manifest.csv") or card.mpp
        listed.append(
            Entry(stem, partial(load, stem, files, card, mpp), _first(row, _GROUP) or stem, _first(row, _SPLIT))
        )
    return listed


def _manifest(root: Path, images: Iterable[str]) -> dict[str, dict[str, str]]:
    path = root / "manifest.csv"
    if not path.is_file():
        return {}
    rows = {row["id"]: row for row in read_rows(path, ["id"])}
    missing, unlisted = sorted(set(rows) - set(images)), sorted(set(images) - set(rows))
    if missing or unlisted:
        which = f"lists {missing[0]} without an image" if missing else f"does not list the image {unlisted[0]}"
        raise DataError(path, which, "make manifest and images agree")
    return rows


def _first(row: dict[str, str], names: Iterable[str]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _number(text: str, where: Path) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise DataError(where, f"mpp is {text!r}", "give microns per pixel as a number") from None


def load(stem: str, files: Files, card: Card, mpp: float | None) -> LabelledImage:
    repairs: Counter[str] = Counter()
    rgb = read_rgb(files.image, repairs)
    if not (files.labels or files.points or files.mask):
        raise DataError(files.image, "has neither labels nor points nor a mask", "label it or remove it")
    labels = types = xy = point_types = foreground = None
    if files.labels:
        labels, _ = labels_for(rgb, read_array(files.labels), files.labels, repairs)
    if labels is not None and files.types:
        types = types_of(labels, read_array(files.types), len(card.classes), files.types, repairs)
    if files.points:
        xy, point_types = inside(*_points(files.points, card), rgb, repairs)
    if files.mask:
        foreground = _foreground(files.mask, rgb.shape[:2])
    return LabelledImage(
        stem,
        rgb,
        labels,
        types,
        xy,
        point_types,
        foreground,
        mpp,
        card.classes,
        _point_classes(card),
        card.name,
        repairs=repairs,
    )


def _point_classes(card: Card) -> tuple[str, ...]:
    return card.point_classes or card.classes


def _points(path: Path, card: Card) -> tuple[Float64, Int64]:
    """Points of a CSV file with x, y and, optionally, class. Whole numbers name a pixel and mean its centre."""
    rows = read_rows(path, ["x", "y"])
    xy = xy_of_rows(rows, path)
    if not np.isfinite(xy).all():
        raise DataError(path, "has a coordinate that is not finite", "remove that row")
    types = [class_index(row.get("class") or "", _point_classes(card), path) for row in rows]
    return xy, np.array(types, np.int64)


def _foreground(path: Path, size: tuple[int, ...]) -> Bool:
    mask = read_array(path)
    mask = np.asarray(mask.any(axis=2)) if mask.ndim == 3 else mask
    if mask.shape != size:
        raise DataError(path, f"the mask is {mask.shape} and the image {size} pixels", "export both at one size")
    if len(np.unique(mask)) > 2:
        raise DataError(path, "has more than two values", "save a yes/no mask, or put instance ids into labels/")
    return np.asarray(mask > 0)
