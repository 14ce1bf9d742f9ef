"""The settings of training from dots. No torch here."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator

from wsi_nuc.config import Section
from wsi_nuc.slides.address import is_url


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
