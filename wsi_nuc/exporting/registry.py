"""The formats of an export. A new one is a file with `COLUMNS` and `write`, and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from wsi_nuc.errors import UsageError, choices

if TYPE_CHECKING:
    # The command line lists the formats, so this module has to import within no time.
    from wsi_nuc.exporting.output import Output
    from wsi_nuc.store.nuclei_rows import NucleiRows

FORMATS: dict[str, str] = {
    "qupath": "wsi_nuc.exporting.qupath",
    "csv": "wsi_nuc.exporting.csv",
    "parquet": "wsi_nuc.exporting.parquet",
    "gpkg": "wsi_nuc.exporting.gpkg",
    "annotationstore": "wsi_nuc.exporting.annotationstore",
    "coco": "wsi_nuc.exporting.coco",
    "cellvit": "wsi_nuc.exporting.cellvit",
    "hovernet": "wsi_nuc.exporting.hovernet",
    "dicom": "wsi_nuc.exporting.dicom",
    "labels": "wsi_nuc.exporting.labels",
    "graph": "wsi_nuc.exporting.graph",
}
MEASURED = "*"
"""In `COLUMNS`: all columns of the table of nuclei, the probabilities of the classes and the features."""
# One colour per class, in the order of the classes; also distinct for the colour-blind.
COLOURS = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]


@dataclass(frozen=True, slots=True)
class About:
    """What a format may need to know about the store."""

    store: Path
    classes: tuple[str, ...]
    """In the order of their numbers."""
    mpp: float
    """Microns per level-0 pixel."""
    slide_sha256: str
    """Of the slide's content."""
    slide: Mapping[str, Any]
    """What the manifest says of the slide, such as `file`, `width_px` and `height_px`."""
    columns: tuple[str, ...]
    """The columns that the rows have, with those that `MEASURED` stands for."""
    units: Mapping[str, str]
    """Of each of the columns; "" where there is none."""

    @property
    def colours(self) -> list[tuple[int, int, int]]:
        """Red, green and blue of each class."""
        return [COLOURS[i % len(COLOURS)] for i in range(len(self.classes))]


class Format(Protocol):
    """A module with `COLUMNS`, `SUFFIX`, and either `write` or, with a `KIND`, `write_path`."""

    COLUMNS: Sequence[str]
    """Columns of the store that it writes beside the outlines."""
    SUFFIX: str
    """How the names of its files end, such as ".geojson", where the program names them."""
    KIND: str
    """"file" or "folder": `write_path` makes it, at a path. Without this name, `write` gets the bytes' way out."""
    MARK: str
    """Of a folder: a file in it by which it is known. Only such a folder is ever replaced."""

    def write(self, nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
        """The first of the `nuclei` have no rows: they show the types of the columns, also for an empty store."""
        ...

    def write_path(self, nuclei: Iterable[NucleiRows], about: About, path: Path) -> None:
        """Make the file or folder `path`, which does not exist. The caller gives it its name when it is whole."""
        ...

    def holds(self, name: str) -> bool:
        """Optional: whether a class can have this name in the format."""
        ...

    BESIDE: Sequence[str]
    """Optional: how the names of small files end that come along with the file."""

    def beside(self, about: About, name: str) -> Sequence[bytes]:
        """With `BESIDE`: the content of these files, for the file called `name`."""
        ...


def format_of(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"--to {name}", "no such format", choices(name, FORMATS, "the formats are"))
    return cast(Format, importlib.import_module(FORMATS[name]))


def kind_of(format: Format) -> str:
    """ "bytes", "file" or "folder"."""
    return getattr(format, "KIND", "bytes")


def library(name: str, extra: str) -> Any:
    """The module of a library that only the package's `extra` installs."""
    try:
        return importlib.import_module(name)
    except ImportError:
        remedy = f"pip install 'wsi-nuc[{extra}]'"
        raise UsageError(f"--to {extra}", f"needs {name}, which is not installed", remedy) from None
