"""The labelled images that dots lead to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.datasets.record import DataError, LabelledImage
from wsi_nuc.errors import about
from wsi_nuc.slides.address import shown
from wsi_nuc.training.dots.config import DotsConfig
from wsi_nuc.training.dots.folder import images_of_folder, is_folder_of_images
from wsi_nuc.training.dots.patches import images_of_slide

FEW_OF_A_CLASS = 10


@dataclass(frozen=True, slots=True)
class DotImages:
    """Labelled images with dots, at the model's resolution."""

    images: tuple[LabelledImage, ...]
    """Each with points on known pixels; an image of a drawn region may have none."""
    classes: tuple[str, ...]
    """What `point_types` count through; empty where no dot has a class."""
    repairs: Mapping[str, int]
    """What was mended or noticed in files, slide and images, and how often."""
    sources: tuple[dict[str, object], ...]
    """What the images are from, for the record in the trained file."""

    @property
    def dots(self) -> int:
        return sum(image.count or 0 for image in self.images)

    @property
    def whole_images(self) -> int:
        """Images on which every nucleus has a dot."""
        return sum(image.known is None for image in self.images)


def images_of(config: DotsConfig, mpp: float, classes: tuple[str, ...] | None = None) -> DotImages:
    """Read the dots and the pixels around them. What cannot be right is an error here, before anything is trained.

    `mpp`: the model's. `classes`: the model's; None: the dots' own.
    """
    with about(shown(config.slide)):
        if is_folder_of_images(Path(config.slide)):
            images, classes, noted, source = images_of_folder(config, mpp, classes)
        else:
            images, classes, noted, source = images_of_slide(config, mpp, classes)
    repairs = sum((Counter(image.repairs) for image in images), Counter(noted)) + _rare(images, classes)
    source = {**source, "images": len(images)}
    gathered = DotImages(tuple(images), classes, dict(sorted(repairs.items())), (source,))
    if not gathered.dots:
        noted_text = "; ".join(f"{what}: {count}" for what, count in gathered.repairs.items())
        raise DataError(
            config.points or config.slide,
            f"has no dot that can be used ({noted_text or 'it is empty'})",
            "put dots on nuclei and export them as points",
        )
    return gathered


def _rare(images: Sequence[LabelledImage], classes: tuple[str, ...]) -> Counter[str]:
    """The classes with hardly a dot that can be used, and how many they have."""
    kinds = Counter(int(kind) for image in images if image.point_types is not None for kind in image.point_types)
    rare = {name: kinds[i] for i, name in enumerate(classes) if kinds[i] < FEW_OF_A_CLASS}
    return Counter(
        {f"dots of class {name!r}, which are too few to learn it": dots for name, dots in rare.items() if dots}
        | {f"class {name!r} of the model that no dot has": 1 for name, dots in rare.items() if not dots}
    )


def enough(gathered: DotImages, config: DotsConfig) -> None:
    """Raise if there is too little to learn from, and say what is missing."""
    dots, whole = gathered.dots, gathered.whole_images
    if dots >= config.least_dots or whole >= config.least_images:
        return
    raise DataError(
        config.points or config.slide,
        f"has {dots} dots that can be used; a training needs {config.least_dots}, or {config.least_images} images "
        f"on which every nucleus has a dot (here: {whole})",
        f"put {config.least_dots - dots} more dots on nuclei, or lower dots.least_dots if you know what you do",
    )
