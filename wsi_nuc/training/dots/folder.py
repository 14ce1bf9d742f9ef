"""Labelled images of a folder, with dots in files beside them or as the data set has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_nuc.datasets.cards import card_of
from wsi_nuc.datasets.files import IMAGES, by_stem, read_rgb
from wsi_nuc.datasets.images import at_mpp, chosen
from wsi_nuc.datasets.record import DataError, LabelledImage, SourceConfig
from wsi_nuc.training.dots.checks import NOT_DARKER, OUTSIDE, WRONG_PIXELS, not_darker, on_pixels, refuse_most
from wsi_nuc.training.dots.config import DotsConfig
from wsi_nuc.training.dots.patches import Found, known_pixels
from wsi_nuc.training.dots.reading import dots_files, read_csv, read_dots
from wsi_nuc.training.dots.record import Dots

Pairs = tuple[list[tuple[LabelledImage, Dots]], dict[str, object]]


def is_folder_of_images(folder: Path) -> bool:
    """Folders of slides (DICOM, Zarr) hold no such files."""
    if not folder.is_dir():
        return False
    places = [folder, folder / "images"]
    if any(path.suffix.lower() in IMAGES for place in places if place.is_dir() for path in place.iterdir()):
        return True
    return any((folder / name).is_file() for name in ("dataset.json", "manifest.csv"))


def images_of_folder(config: DotsConfig, mpp: float, classes: tuple[str, ...] | None) -> Found:
    pairs, about = _of_dataset(config) if config.points is None else _of_files(config, config.points)
    points = config.points or config.slide
    xy = np.concatenate([np.zeros((0, 2)), *(dots.xy for _, dots in pairs)])
    names = [dots.classes[kind] if kind >= 0 else "" for _, dots in pairs for kind in dots.kinds.tolist()]
    together = Dots.of(xy, names).in_classes(config.classes, classes, points)
    ends = np.cumsum([len(dots) for _, dots in pairs])
    outside = [~on_pixels(dots.xy, image) for image, dots in pairs]
    refuse_most(np.concatenate(outside), points, "outside of their images", WRONG_PIXELS)
    images = []
    for (image, dots), end, beyond in zip(pairs, ends, outside, strict=True):
        own = replace(dots, kinds=together.kinds[end - len(dots) : end], classes=together.classes)
        own = own.keeping(~beyond, OUTSIDE)
        own_mpp = config.mpp or image.mpp or mpp
        own = own.one_per_nucleus(config.same_nucleus_um / own_mpp)
        labelled = replace(
            image,
            points_xy=own.xy,
            point_types=own.kinds,
            mpp=own_mpp,
            classes=own.classes,
            point_classes=own.classes,
            repairs=Counter(image.repairs) + Counter(own.repairs),
        )
        if own.region is not None and config.regions:
            reach = config.surroundings_um / own_mpp
            known = known_pixels(own.xy, own.region, (image.rgb.shape[0], image.rgb.shape[1]), reach)
            labelled = replace(labelled, known=known)
        images.append(at_mpp(labelled, mpp))
    noted = together.noting(NOT_DARKER, not_darker(images, points, config.least_on_nuclei))
    return images, together.classes, dict(noted.repairs), about


def _of_dataset(config: DotsConfig) -> Pairs:
    """The images and points of a data set. Masks are not looked at."""
    dataset = chosen(SourceConfig(path=Path(config.slide), split=config.split))
    pairs, without = [], []
    for image in dataset:
        if image.points_xy is None:
            without.append(image.id)
            continue
        kinds = image.point_types
        kinds = np.full(len(image.points_xy), -1) if kinds is None else kinds
        bare = replace(image, instances=None, types=None, foreground=None)
        pairs.append((bare, Dots(image.points_xy, kinds, image.point_classes)))
    if not pairs:
        raise DataError(config.slide, f"has no points, such as for {without[0]}", "name their file with --points")
    card = dataset.card
    return pairs, {"name": card.name, "licence": card.licence, "trains_released": card.trains_released}


def _of_files(config: DotsConfig, points: Path) -> Pairs:
    """The images of a folder and the dots of files, by the names of the images."""
    folder = Path(config.slide)
    images = by_stem(folder / "images" if (folder / "images").is_dir() else folder)
    if points.is_dir():
        of_image = {path.stem: read_dots(path) for path in dots_files(points)}
    elif points.suffix.lower() == ".csv":
        of_image = {Path(name).stem: dots for name, dots in read_csv(points, by="image").items()}
    else:
        raise DataError(
            points, "does not say which image a dot is on", "give a folder of files with the images' names"
        )
    orphans = sorted(set(of_image) - set(images))
    if orphans or not of_image:
        cause = f"has dots for {orphans[0]!r}, which is not in {folder}" if orphans else "holds no file of dots"
        raise DataError(points, cause, f"the images are {', '.join(list(images)[:5])}")
    card = card_of(folder)
    pairs = []
    for stem, dots in of_image.items():
        repairs: Counter[str] = Counter()
        rgb = read_rgb(images[stem], repairs)
        pairs.append((LabelledImage(stem, rgb, mpp=card.mpp, source=card.name, group=stem, repairs=repairs), dots))
    return pairs, {"name": card.name, "licence": card.licence, "trains_released": card.trains_released}
