"""The readers of labelled data. A new reader is a file with `recognises` and `entries`, and a line here."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from wsi_nuc.datasets.cards import Card, card_of
from wsi_nuc.datasets.record import DataError, Dataset, Entry
from wsi_nuc.errors import choices

# In the order in which they are asked: what a folder says of itself first, loose files last.
READERS: dict[str, str] = {
    "pannuke": "wsi_nuc.datasets.readers.pannuke",
    "tnbc": "wsi_nuc.datasets.readers.tnbc",
    "folder": "wsi_nuc.datasets.readers.folder",
    "mat": "wsi_nuc.datasets.readers.mat",
    "results": "wsi_nuc.importing.results",
    "geojson": "wsi_nuc.datasets.readers.geojson",
    "imagescope": "wsi_nuc.datasets.readers.imagescope",
    "slides": "wsi_nuc.training.fields",
}


class Reader(Protocol):
    """A module that reads one layout of labelled images."""

    def recognises(self, root: Path) -> bool:
        """Whether the folder has this layout."""
        ...

    def entries(self, root: Path, card: Card) -> list[Entry]:
        """The images of the folder, not read yet."""
        ...


def reader(name: str) -> Reader:
    if name not in READERS:
        raise DataError(f"reader {name}", "does not exist", choices(name, READERS, "the readers are"))
    return cast(Reader, importlib.import_module(READERS[name]))


def load_dataset(root: Path | str, *, name: str = "", reader_name: str = "") -> Dataset:
    """The labelled images below a folder. `name`: a known data set, for its classes, resolution and licence;
    without it, `dataset.json` or the folder's name decides. `reader_name`: without it, the content decides."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(root, "is not a folder", "name the folder of the data set")
    card = card_of(root, name)
    chosen = reader_name or card.reader or detect(root)
    entries = reader(chosen).entries(root, card)
    if not entries:
        raise DataError(root, f"the reader {chosen} finds no labelled image", "check the folder's layout")
    if _twice(entries):
        # CPM-17 numbers the images of train and of test from 0.
        entries = [replace(entry, id=f"{entry.split}/{entry.id}") if entry.split else entry for entry in entries]
    if twice := _twice(entries):
        cause = f"two images are called {twice[0]}" + (f", and {len(twice) - 1} more names" if twice[1:] else "")
        raise DataError(root, cause, "give every image of a split its own name")
    return Dataset(root, card, chosen, tuple(sorted(entries, key=lambda entry: entry.id)))


def _twice(entries: Sequence[Entry]) -> list[str]:
    """The ids of more than one image."""
    return sorted(name for name, count in Counter(entry.id for entry in entries).items() if count > 1)


def detect(root: Path) -> str:
    """The first reader that recognises the folder."""
    for name in READERS:
        if reader(name).recognises(root):
            return name
    raise DataError(
        root,
        "holds no labelled images of a known layout",
        "use images/ with labels/, points/ or masks/, or a layout of PanNuke, MoNuSeg, CoNSeP, TNBC or QuPath",
    )
