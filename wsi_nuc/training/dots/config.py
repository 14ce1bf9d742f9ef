"""The settings of training from dots, and the labelled images that they lead to. No torch here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from wsi_nuc.config import Section
from wsi_nuc.datasets.record import DataError, LabelledImage
from wsi_nuc.errors import about
from wsi_nuc.slides.address import is_url, shown

FEW_OF_A_CLASS = 10


class DotsConfig(Section):
    """Dots on nuclei, and the pixels below them."""

    slide: str
    """A slide, or a folder of images."""
    points: Path | None = None
    """QuPath's GeoJSON, CSV (x,y,class) or a result of this program, in level-0 pixels of the slide. For a folder
    of images: a folder with a file of dots per image, or a CSV file with the column `image`. None: the folder is a
    data set that has points."""
    classes: dict[str, str] = Field(default_factory=dict)
    """The file's class names -> the model's, "" for no class; not needed for names that are the same."""
    mpp: float | None = Field(default=None, gt=0.01, lt=100)
    """Microns per level-0 pixel, in place of what the slide or the data set says."""
    split: str = ""
    """Only images of this split, where the folder is a data set with splits."""
    tissue: str = "auto"
    """Where dots can lie on the slide: auto, none (everywhere), or the path of a GeoJSON file. As in `run`."""
    regions: bool = True
    """Whether a drawn polygon is a region where every nucleus has a dot. False: polygons are ignored."""
    surroundings_um: float = Field(default=8.0, gt=0, lt=1000)
    """Outside of drawn regions, only pixels that are nearer to a dot than this are learned from."""
    same_nucleus_um: float = Field(default=2.0, ge=0, lt=100)
    """Of dots that are nearer to each other than this, one is kept."""
    least_on_nuclei: float = Field(default=0.5, ge=0, le=1)
    """With a smaller share of dots that absorb more red light than their surroundings, the dots are refused, as
    drawn for other pixels. 0: no check."""
    least_dots: int = Field(default=300, ge=1)
    """With fewer dots, and fewer whole images than `least_images`, a training does not start."""
    least_images: int = Field(default=4, ge=1)
    """Images on which every nucleus has a dot."""
    patch_px: int = Field(default=512, ge=64, le=4096, multiple_of=32)
    """Edge of the patches that are cut out of a slide, in pixels of the model's resolution."""
    most_patches: int = Field(default=400, ge=1)
    """Where dots and regions cover more patches, a random choice of this many is used. All are held in memory: 400
    of 512 pixels take 0.4 GB."""

    @field_validator("slide")
    @classmethod
    def _absolute_slide(cls, value: str) -> str:
        return value if is_url(value) else os.path.abspath(Path(value).expanduser())

    @field_validator("points")
    @classmethod
    def _absolute_points(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()


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
    from wsi_nuc.training.dots.folder import images_of_folder, is_folder_of_images
    from wsi_nuc.training.dots.patches import images_of_slide

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
