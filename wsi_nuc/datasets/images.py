"""Labelled images of several data sets as one list at the model's resolution and with the model's classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from wsi_nuc.datasets.labels import clean_labels
from wsi_nuc.datasets.record import DataError, Dataset, LabelledImage, SourceConfig
from wsi_nuc.datasets.registry import load_dataset
from wsi_nuc.errors import UsageError
from wsi_nuc.resampling import nearly_one, resized
from wsi_nuc.types import Int64, UInt8


@dataclass(frozen=True, slots=True)
class Loaded:
    """`sources`: name and licence of each data set, and whether released weights may be trained on it. `repairs`:
    what was mended or noticed while reading, summed over images."""

    images: tuple[LabelledImage, ...]
    sources: tuple[dict[str, object], ...]
    repairs: Mapping[str, int] = field(default_factory=dict)


def load_images(sources: Sequence[SourceConfig], classes: tuple[str, ...], mpp: float) -> Loaded:
    """All images in memory, in the order of the sources; any image that cannot be read is an error."""
    images: list[LabelledImage] = []
    about: list[dict[str, object]] = []
    for source in sources:
        dataset = chosen(source)
        images += [at_mpp(with_classes(image, classes, source), mpp) for image in dataset]
        card = dataset.card
        about.append({
            "name": card.name, "licence": card.licence, "trains_released": card.trains_released,
            "images": len(dataset),
        })  # fmt: skip
    return Loaded(tuple(images), tuple(about), sum((Counter(image.repairs) for image in images), Counter()))


def chosen(source: SourceConfig) -> Dataset:
    """The images of a source; nothing left, or an unknown name, is an error that says what there is."""
    dataset = load_dataset(source.path, name=source.name, reader_name=source.reader)
    if source.split or source.groups:
        dataset = dataset.select(split=source.split or None, groups=source.groups or None)
    missing = sorted(set(source.images) - set(dataset.ids))
    if missing:
        raise DataError(
            source.path, f"has no image {missing[0]}", f"some of its images: {', '.join(dataset.ids[:8])}"
        )
    if source.images:
        dataset = replace(dataset, entries=tuple(e for e in dataset.entries if e.id in source.images))
    return dataset


def with_classes(image: LabelledImage, classes: tuple[str, ...], source: SourceConfig) -> LabelledImage:
    """Types as indices into the model's classes. A model of one class has all nuclei in it."""
    if image.instances is not None:
        # Masks say where the nuclei are; points of other classes beside them are not needed.
        image = replace(image, points_xy=None, point_types=None)
    return replace(
        image,
        types=_mapped(image.types, image.count, image.classes, classes, source),
        point_types=_mapped(
            image.point_types,
            None if image.points_xy is None else len(image.points_xy),
            image.point_classes,
            classes,
            source,
        ),
        classes=classes,
        point_classes=classes,
    )


def _mapped(
    types: Int64 | None, count: int | None, own: Sequence[str], classes: tuple[str, ...], source: SourceConfig
) -> Int64 | None:
    if len(classes) == 1:
        return None if count is None else np.zeros(count, np.int64)
    if types is None:
        return None if count is None else np.full(count, -1, np.int64)
    return class_table(own, classes, source.classes, str(source.path))[types]


def class_table(own: Sequence[str], classes: Sequence[str], mapping: Mapping[str, str], where: str) -> Int64:
    """Index into `classes` for each of `own` and, last, for -1: not said, so not said here either."""
    wanted = [mapping.get(name, name) for name in own]
    unknown = [f"{name} -> {to}" if name != to else name for name, to in zip(own, wanted, strict=True)
               if to and to not in classes]  # fmt: skip
    if unknown:
        raise UsageError(
            where,
            f"its classes {', '.join(unknown)} are none of the model's ({', '.join(classes)})",
            'map them in the source\'s `classes`, such as {"other": "nucleus"}, or to "" for not said',
        )
    return np.array([classes.index(to) if to else -1 for to in wanted] + [-1], np.int64)


def pixels_at(image: LabelledImage, mpp: float) -> tuple[UInt8, float]:
    """Pixels as a model of this resolution wants them, and how many of them make one of the image's. As for
    slides, a resolution that is nearly the model's is taken as it is."""
    scale = 1.0 if image.mpp is None else image.mpp / mpp
    if nearly_one(1 / scale):
        return image.rgb, 1.0
    height, width = image.rgb.shape[:2]
    return resized(image.rgb, (max(1, round(width * scale)), max(1, round(height * scale)))), scale


def at_mpp(image: LabelledImage, mpp: float) -> LabelledImage:
    """The image at the model's resolution; nuclei that vanish in it are dropped and counted."""
    rgb, scale = pixels_at(image, mpp)
    if scale == 1.0:
        return image
    height, width = image.rgb.shape[:2]
    size = rgb.shape[1::-1]
    instances, types, repairs = image.instances, image.types, Counter(image.repairs)
    if instances is not None:
        resized = cv2.resize(instances.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
        instances, ids = clean_labels(resized, image.id, Counter())
        types = None if types is None else types[ids - 1]
        repairs["nuclei too small for the model's resolution (dropped)"] += (image.count or 0) - len(ids)
    foreground = image.foreground
    if foreground is not None:
        foreground = cv2.resize(foreground.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    xy = None if image.points_xy is None else image.points_xy * (size[0] / width, size[1] / height)
    labelled = replace(image, instances=instances, types=types, foreground=foreground, points_xy=xy)
    return replace(labelled, rgb=rgb, mpp=mpp, repairs=+repairs)
