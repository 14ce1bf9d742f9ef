"""One result that is being looked at: what it is, its nuclei and its pixels."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.report.pictures import thumbnail
from wsi_nuc.safezarr import read_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.manifest import Json
from wsi_nuc.store.nuclei_columns import NUCLEI
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.store.reading import NucleiFile, class_names
from wsi_nuc.store.verify import verify
from wsi_nuc.viewer import slide as slides
from wsi_nuc.viewer.columns import Columns, cell_grid, column_names
from wsi_nuc.viewer.guard import NotThere
from wsi_nuc.viewer.layers import layers_of
from wsi_nuc.viewer.outlines import POINT_CELLS, Outlines
from wsi_nuc.viewer.pictures import TILE_PX, Pyramid
from wsi_nuc.viewer.slide import FoundSlide

MOST_TEXTS = 100_000
VERIFY_AFTER_S = 5.0
# Of larger results only the sizes of the files are compared: to read them all would slow the page down for long.
MOST_VERIFIED_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Place:
    """A result that can be looked at."""

    id: str
    """Names it in addresses: from its digest, so that it tells nothing about its path."""
    name: str
    store: Path
    slide: str | None = None
    """Where its slide is, if somebody said so."""
    roi: str | None = None
    """The GeoJSON file of its ROI, if somebody said where it is."""


def checked_manifest(store: Path) -> Json:
    """The manifest of a result that can be shown; StorageError for one that is damaged or newer. Files are
    compared by their sizes alone, which takes milliseconds."""
    manifest, inside = manifests.read(store), contents(store)
    if not {"width_px", "height_px", "mpp"} <= set(manifest["slide"]) or "area_mm2" not in manifest["counts"]:
        raise StorageError(store, "does not say how large its slide is", "run the slide again")
    for name, entry in manifest["files"].items():
        try:
            size = (inside / name).stat().st_size
        except (OSError, StorageError):
            size = -1
        if size != entry["size"]:
            problem = "is missing" if size < 0 else f"has {size:,} bytes instead of {entry['size']:,}"
            raise StorageError(store, f"is damaged: {name} {problem}", "`wsi-nuc verify` says what else is wrong")
    return manifest


class OpenedStore:
    """A result with its slide. What takes long is read once, when it is first asked for."""

    def __init__(self, place: Place, folders: tuple[Path, ...]) -> None:
        self.place, store = place, place.store
        self.manifest = checked_manifest(store)
        stated = self.manifest["slide"]
        self.size_l0 = int(stated["width_px"]), int(stated["height_px"])
        self.mpp = float(stated["mpp"])
        self.classes = class_names(store)
        self._lock = threading.Lock()
        self.reader = NucleiReader(store)
        self.outlines = Outlines(NucleiFile(store))
        self.slide: FoundSlide = slides.find(store, self.manifest, place.slide, folders)
        self.small = thumbnail(store)
        self._pyramids = (
            Pyramid(self.size_l0, self.slide.source, self.small),
            Pyramid(self.size_l0, None, self.small),
        )
        self.problems: list[str] = []
        self._files = "checking"

    @property
    def pyramid(self) -> Pyramid:
        """Tiles of the slide, or of the thumbnail alone where the slide is not to be shown."""
        return self._pyramids[0 if self.slide.usable else 1]

    @property
    def columns(self) -> Columns:
        with self._lock:
            return self._columns

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self.reader, len(self.classes), self.size_l0, self.mpp)

    def warm_up(self) -> None:
        """Read what every page asks for; once a page had time to open, compare every file with the manifest."""
        _ = self.columns
        time.sleep(VERIFY_AFTER_S)
        if sum(entry["size"] for entry in self.manifest["files"].values()) > MOST_VERIFIED_BYTES:
            self._files = "sizes"
            return
        self.problems = verify(self.place.store)
        self._files = "damaged" if self.problems else "same"

    def document(self) -> Json:
        """What a page has to know before it asks for nuclei."""
        edge, columns, rows = cell_grid(self.size_l0, self.mpp)
        return {
            "id": self.place.id,
            "name": self.place.name,
            "width": self.size_l0[0],
            "height": self.size_l0[1],
            "mpp": self.mpp,
            "tile": TILE_PX,
            "steps": self.pyramid.steps,
            "slide": self.status(),
            "nuclei": self.reader.rows,
            "roi": bool(self.manifest["made_from"].get("config", {}).get("roi")),
            "lost": len(manifests.lost_boxes(self.manifest["tiles"])),
            "classes": [{"name": name} for name in self.classes],
            "cell": edge,
            "cells": [columns, rows],
            "pointCells": POINT_CELLS,
            "columns": self._column_facts(),
            "provenance": self.provenance(),
            "slideKey": str(self.manifest["made_from"]["slide_sha256"])[:16],
        }

    def status(self) -> Json:
        return {
            "state": self.slide.state,
            "why": self.slide.why,
            "files": self._files,
            "problems": self.problems[:20],
            "doubts": [*self.manifest["run"].get("doubts", []), *self._unlike()],
        }

    def _unlike(self) -> list[str]:
        unlike = self.manifest["counts"].get("unlike_training_images") or []
        return [f"the slide looks unlike the training images: {', '.join(unlike)}"] if unlike else []

    def _column_facts(self) -> list[Json]:
        """Name, unit, meaning, family and range of every column that a picture can be coloured by."""
        own = {column.name: column for column in NUCLEI}
        facts = {name: self._facts(name) for name in ("unit", "about", "family")}
        measured = self.reader.measured_columns
        listed = []
        for name in column_names(self.reader):
            if name in own:
                unit, about, family = own[name].unit, own[name].about, "nucleus"
            else:
                unit, about, family = (facts[fact].get(measured.index(name), "") for fact in facts)
            listed.append({"name": name, "unit": unit, "about": about, "family": family or "class"})
        return listed

    def _facts(self, fact: str) -> dict[int, str]:
        path = contents(self.place.store) / layout.NUCLEI_TABLE / "var" / fact
        try:
            return dict(enumerate(map(str, read_array(path, MOST_TEXTS))))
        except (OSError, KeyError, ValueError, StorageError):
            return {}

    def provenance(self) -> list[list[str]]:
        """What the nuclei were made from, as pairs of texts."""
        made, stated = self.manifest["made_from"], self.manifest["slide"]
        config = made.get("config", {})
        pairs = [
            ("slide", f"{stated.get('file', '')}, {self.size_l0[0]:,} x {self.size_l0[1]:,} px"),
            ("resolution", f"{self.mpp:g} um per pixel ({stated.get('mpp_source', '')})"),
            ("model", str(config.get("model", config.get("import", "")))),
            ("weights", str(made.get("weights_sha256", ""))[:16]),
            ("tissue", _short(config.get("tissue"))),
            ("roi", _short(config.get("roi"))),
            ("wsi-nuc", str(self.manifest["versions"].get("wsi-nuc", ""))),
            ("result", str(self.manifest["digest"])[:16]),
        ]
        return [[name, text] for name, text in pairs if text]

    def nucleus(self, number: int) -> Json:
        """Everything that is known about one nucleus; NotThere where there is none."""
        row = number - 1
        if not 0 <= row < self.reader.rows:
            raise NotThere("there is no such nucleus")
        with self._lock:
            names = [n for n in self.reader.shape_columns if n != "class_id"] + list(self.reader.measured_columns)
            group = int(np.searchsorted(self.reader.starts, row, side="right")) - 1
            with NucleiReader(self.place.store, names) as reader:
                at = np.array([row - int(reader.starts[group])])
                one_row = reader.nuclei(group).select(at)
        values = {name: _plain(column[0]) for name, column in one_row.columns.items()}
        return {
            "id": number,
            "ring": np.round(one_row.rings.xy, 2).tolist(),
            "values": values,
            "provenance": [*self.provenance(), ["row group", str(group)]],
        }

    def layers(self) -> Json:
        with self._lock:
            return self._layers

    @cached_property
    def _layers(self) -> Json:
        return layers_of(self.place.store, self.manifest, self.place.roi)


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text[:16] if len(text) == 64 else text[:80]


def _plain(value: Any) -> Any:
    """A value for JSON: NaN becomes None."""
    if isinstance(value, str):
        return value
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
