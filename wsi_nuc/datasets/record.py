"""The one record of a labelled image, and the data set that loads such records one at a time.

How a configuration names labelled images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
from pydantic import Field

from wsi_nuc.config import Section
from wsi_nuc.datasets.cards import Card
from wsi_nuc.errors import UsageError
from wsi_nuc.types import Bool, Float64, Int64, UInt8


class SourceConfig(Section):
    """Images of one folder. Where a choice of images is empty, all of them are taken."""

    path: Path
    name: str = ""
    """A known data set, for its classes, resolution and licence."""
    reader: str = ""
    """One of `registry.READERS`, else decided by content."""
    split: str = ""
    groups: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    classes: dict[str, str] = Field(default_factory=dict)
    """This set's class names -> the model's; not needed where they are the same."""


Int32 = npt.NDArray[np.int32]


class DataError(UsageError):
    """A labelled image, or the data set, cannot be used as it is."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and what is known about its nuclei; what is not known is None.

    `rgb` H x W x 3 uint8. `instances` H x W int32, ids 1..N without gaps, 0 = background. `types` N int64, entry
    i is the class of id i + 1 as an index into `classes`, -1 = not said. `points_xy` M x 2 float64 in image
    pixels (the centre of the first pixel is 0.5, 0.5), with `point_types` M int64 into `point_classes`.
    `foreground` H x W bool, touching nuclei merged. `mpp` microns per pixel. `group` is the patient, field or
    tissue that must not be split over training and validation. `repairs` counts what was mended or noticed.
    """

    id: str
    rgb: UInt8
    instances: Int32 | None = None
    types: Int64 | None = None
    points_xy: Float64 | None = None
    point_types: Int64 | None = None
    foreground: Bool | None = None
    mpp: float | None = None
    classes: tuple[str, ...] = ()
    point_classes: tuple[str, ...] = ()
    source: str = ""
    group: str = ""
    split: str = ""
    repairs: Mapping[str, int] = field(default_factory=dict)

    @property
    def supervision(self) -> str:
        """The strongest label: "masks", "points" or "foreground"."""
        if self.instances is not None:
            return "masks"
        return "points" if self.points_xy is not None else "foreground"

    @property
    def count(self) -> int | None:
        """Number of nuclei, None where only the foreground is known."""
        if self.instances is not None:
            return int(self.instances.max(initial=0))
        return None if self.points_xy is None else len(self.points_xy)


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a data set that is not read yet; `load` is picklable, so that workers can read it."""

    id: str
    load: Callable[[], LabelledImage]
    group: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images in the order of their ids. Indexing reads one image; slicing and `select` read nothing."""

    root: Path
    card: Card
    reader: str
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> LabelledImage: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> LabelledImage | Dataset:
        if isinstance(index, slice):
            return replace(self, entries=self.entries[index])
        entry = self.entries[index]
        return replace(entry.load(), group=entry.group, split=entry.split)

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[i] for i in range(len(self)))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    def select(self, *, split: str | None = None, groups: Collection[str] | None = None) -> Dataset:
        """The images of a split and of these groups; nothing left is an error that names what there is."""
        kept = tuple(e for e in self.entries if split in (None, e.split) and (groups is None or e.group in groups))
        if not kept:
            splits = ", ".join(sorted({e.split or "(none)" for e in self.entries}))
            raise DataError(self.root, f"has no image of split {split}", f"its splits are {splits}")
        return replace(self, entries=kept)
