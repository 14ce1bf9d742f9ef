"""The record of a labelled image, the data set that loads such records one by one, and its configuration."""

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

Int32 = npt.NDArray[np.int32]


class SourceConfig(Section):
    """Images of a folder. An empty choice of split, groups or images takes all."""

    path: Path
    name: str = ""
    """A known data set, for its classes, resolution and licence."""
    reader: str = ""
    """One of `registry.READERS`; "" to decide by content."""
    split: str = ""
    groups: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    classes: dict[str, str] = Field(default_factory=dict)
    """This set's class names -> the model's; not needed for names that are the same."""


class DataError(UsageError):
    """A labelled image, or the data set, cannot be used as it is."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and what is known about its nuclei. What is not known is None."""

    id: str
    rgb: UInt8
    """H x W x 3."""
    instances: Int32 | None = None
    """H x W: ids 1..N without gaps, 0 = background."""
    types: Int64 | None = None
    """N: the class of id i + 1 as an index into `classes`, -1 if it has none."""
    points_xy: Float64 | None = None
    """M x 2, in image pixels; the centre of the first pixel is 0.5, 0.5."""
    point_types: Int64 | None = None
    """M: the class of each point as an index into `point_classes`, -1 if it has none."""
    foreground: Bool | None = None
    """H x W: the pixels of all nuclei; nuclei that touch are not told apart."""
    mpp: float | None = None
    """Microns per pixel."""
    classes: tuple[str, ...] = ()
    point_classes: tuple[str, ...] = ()
    source: str = ""
    """The name of the data set."""
    group: str = ""
    """The patient, field or tissue that must not be split over training and validation."""
    split: str = ""
    repairs: Mapping[str, int] = field(default_factory=dict)
    """How often each kind of fault was mended or noticed."""
    known: Bool | None = None
    """H x W: where a missing dot means background; None: everywhere."""

    @property
    def supervision(self) -> str:
        """The strongest label: "masks", "points" or "foreground"."""
        if self.instances is not None:
            return "masks"
        return "points" if self.points_xy is not None else "foreground"

    @property
    def count(self) -> int | None:
        """Number of nuclei; None if only the foreground is known."""
        if self.instances is not None:
            return int(self.instances.max(initial=0))
        return None if self.points_xy is None else len(self.points_xy)


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a data set that is not read yet."""

    id: str
    load: Callable[[], LabelledImage]
    """Reads the image. It is picklable, so that workers can call it."""
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
        return replace(entry.load(), id=entry.id, group=entry.group, split=entry.split)

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[i] for i in range(len(self)))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    def select(self, *, split: str | None = None, groups: Collection[str] | None = None) -> Dataset:
        """The images of a split and of these groups. If there are none, the error names what there is."""
        kept = tuple(
            entry
            for entry in self.entries
            if split in (None, entry.split) and (groups is None or entry.group in groups)
        )
        if not kept:
            splits = ", ".join(sorted({entry.split or "(none)" for entry in self.entries}))
            raise DataError(self.root, f"has no image of split {split}", f"its splits are {splits}")
        return replace(self, entries=kept)
