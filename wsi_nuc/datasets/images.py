"""Labelled images of several data sets in one list, at the model's resolution and with the model's classes."""

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
    """All images of the sources, in memory."""

    images: tuple[LabelledImage, ...]
    sources: tuple[dict[str, object], ...]
    """Name, licence and number of images of each data set, and whether released weights may be trained on it."""
    repairs: Mapping[str, int] = field(default_factory=dict)
    """What was mended or noticed while reading, summed over images."""


def load_images(sources: Sequence[SourceConfig], classes: tuple[str, ...], mpp: float) -> Loaded:
    """All images, in the order of the sources. An image that cannot be read is an error."""
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
    """The images of a source. An unknown name or a choice without images is an error that says what there is."""
    dataset = load_dataset(source.path, name=source.name, reader_name=source.reader)
    if source.split or source.groups:
        dataset = dataset.select(split=source.split or None, groups=source.groups or None)
    missing = sorted(set(source.images) - set(dataset.ids))
    if missing:
        raise DataError(
            source.path, f"has no image {missing[0]}", f"some of its images: {', '.join(dataset.ids[:8])}"
        )
    if source.images:
        entries = tuple(entry for entry in dataset.entries if entry.id in source.images)
        dataset = replace(dataset, entries=entries)
    return dataset


def combined(sources: Sequence[SourceConfig]) -> Dataset:
    """The images of several sources as one set. An image is then called after its folder, since images of two
    folders may have the same name."""
    first, *others = [chosen(source) for source in sources]
    if not others:
        return first
    entries = []
    for source, dataset in zip(sources, (first, *others), strict=True):
        if dataset.card.classes != first.card.classes or (dataset.reader == "pannuke") != (
            first.reader == "pannuke"
        ):
            raise DataError(source.path, f"has other classes than {sources[0].path}", "score the two apart")
        entries += [replace(entry, id=f"{source.path.as_posix()}/{entry.id}") for entry in dataset.entries]
    ids = Counter(entry.id for entry in entries)
    if twice := [name for name, count in ids.items() if count > 1]:
        raise DataError(twice[0], "is in two sources", "name each image in one of them")
    return replace(first, entries=tuple(entries))


def with_classes(image: LabelledImage, classes: tuple[str, ...], source: SourceConfig) -> LabelledImage:
    """The image with types as indices into the model's classes. If there is only one, all nuclei are of it."""
    if image.instances is not None:
        # Masks say where the nuclei are, so points with classes of their own are not needed.
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
    """The index into `classes` for each name of `own`. A last entry keeps -1, which stands for no class."""
    wanted = [mapping.get(name, name) for name in own]
    unknown = [f"{name} -> {to}" if name != to else name for name, to in zip(own, wanted, strict=True)
               if to and to not in classes]  # fmt: skip
    if unknown:
        raise UsageError(
            where,
            f"its classes {', '.join(unknown)} are not among the model's ({', '.join(classes)})",
            'map them in the source\'s `classes`, such as {"other": "nucleus"}, or to "" for no class',
        )
    return np.array([classes.index(to) if to else -1 for to in wanted] + [-1], np.int64)


def pixels_at(image: LabelledImage, mpp: float) -> tuple[UInt8, float]:
    """Pixels at the resolution of a model, and how many of them make a pixel of the image. As for slides, a
    resolution that is nearly the model's is taken as it is."""
    scale = 1.0 if image.mpp is None else image.mpp / mpp
    if nearly_one(1 / scale):
        return image.rgb, 1.0
    height, width = image.rgb.shape[:2]
    return resized(image.rgb, (max(1, round(width * scale)), max(1, round(height * scale)))), scale


def at_mpp(image: LabelledImage, mpp: float) -> LabelledImage:
    """The image at the model's resolution. Nuclei that vanish there are dropped and counted."""
    rgb, scale = pixels_at(image, mpp)
    if scale == 1.0:
        return image
    height, width = image.rgb.shape[:2]
    size = rgb.shape[1::-1]
    instances, types, repairs = image.instances, image.types, Counter(image.repairs)
    if instances is not None:
        labels = cv2.resize(instances.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
        instances, ids = clean_labels(labels, image.id, Counter())
        types = None if types is None else types[ids - 1]
        repairs["nuclei too small for the model's resolution (dropped)"] += (image.count or 0) - len(ids)
    foreground, known = (
        None if mask is None else cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        for mask in (image.foreground, image.known)
    )
    xy = None if image.points_xy is None else image.points_xy * (size[0] / width, size[1] / height)
    labelled = replace(image, instances=instances, types=types, foreground=foreground, known=known, points_xy=xy)
    return replace(labelled, rgb=rgb, mpp=mpp, repairs=+repairs)
