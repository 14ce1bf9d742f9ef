"""The readers of other programs' cells. A new reader is a file with `recognises` and `cells`, and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from wsi_nuc.errors import UsageError, choices
from wsi_nuc.importing.record import Cells, Wanted

# In the order in which they are asked. Each decides by content.
READERS: dict[str, str] = {
    "spatialdata": "wsi_nuc.importing.spatialdata",
    "geoparquet": "wsi_nuc.importing.geoparquet",
    "tiatoolbox": "wsi_nuc.importing.tiatoolbox",
    "cellvit": "wsi_nuc.importing.cellvit",
    "hovernet": "wsi_nuc.importing.hovernet",
    "qupath": "wsi_nuc.importing.qupath",
}
KNOWN = (
    "QuPath's GeoJSON, CellViT's cells.json, HoVer-Net's JSON, TIAToolbox's AnnotationStore, "
    "SpatialData's zarr and GeoParquet are read"
)


class Reader(Protocol):
    """A module that reads the cells of one format."""

    def recognises(self, path: Path) -> bool:
        """Whether the file or folder has this format."""
        ...

    def cells(self, path: Path, wanted: Wanted) -> Iterator[Cells]:
        """The cells, in batches."""
        ...


def reader(name: str) -> Reader:
    if name not in READERS:
        raise UsageError(
            f"--format {name}", "no such format", choices(name, ("auto", *READERS), "the formats are")
        )
    return cast(Reader, importlib.import_module(READERS[name]))


def format_of(path: Path, wanted: str = "auto") -> str:
    """The name of the reader that the user chose, or of the first reader that recognises the content."""
    if not path.exists():
        raise UsageError(path, "does not exist", "check the path")
    if wanted != "auto":
        reader(wanted)
        return wanted
    try:
        for name in READERS:
            if reader(name).recognises(path):
                return name
    except OSError as error:
        raise UsageError(path, f"cannot be read ({error.strerror or error})", "check the file") from error
    raise UsageError(path, "its format is not known", f"{KNOWN}; convert it to one of them, or say --format")
