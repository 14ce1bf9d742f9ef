"""The formats of an export. A new one is a file with `COLUMNS` and `write`, and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from wsi_nuc.errors import UsageError, choices
from wsi_nuc.exporting.output import Output
from wsi_nuc.store.nuclei_rows import NucleiRows

FORMATS: dict[str, str] = {
    "qupath": "wsi_nuc.exporting.qupath",
    "coco": "wsi_nuc.exporting.coco",
    "cellvit": "wsi_nuc.exporting.cellvit",
    "hovernet": "wsi_nuc.exporting.hovernet",
}


@dataclass(frozen=True, slots=True)
class About:
    """What a format may need to know about the store."""

    classes: tuple[str, ...]
    """In the order of their numbers."""
    mpp: float
    """Microns per level-0 pixel."""
    slide_sha256: str
    """Of the slide's content."""
    slide_file: str
    """The name of the slide's file."""
    size_l0: tuple[int, int]
    """Width and height of the slide."""


class Format(Protocol):
    """A module with these names."""

    COLUMNS: Sequence[str]
    """Columns of the store that it writes beside the outlines."""

    def write(self, nuclei: Iterable[NucleiRows], about: About, output: Output) -> None: ...


def format_of(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"--to {name}", "no such format", choices(name, FORMATS, "the formats are"))
    return cast(Format, importlib.import_module(FORMATS[name]))
