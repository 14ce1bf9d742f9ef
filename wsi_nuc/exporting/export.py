"""Writes a published store to a file for another program, one row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.exporting.output import atomic_output
from wsi_nuc.exporting.registry import About, format_of
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.nuclei_rows import NucleiReader, NucleiRows, of_classes
from wsi_nuc.store.reading import class_names

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which nuclei are wanted; all by default."""

    classes: tuple[str, ...] = ()
    """Names of classes; empty for all."""
    min_score: float = 0.0
    """0 to 1."""
    box_l0: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 in level-0 pixels: only nuclei whose boxes meet it."""

    def of(self, rows: NucleiRows) -> NucleiRows:
        wanted = rows.columns["score"] >= self.min_score
        if self.classes:
            wanted &= of_classes(rows.columns["class"], self.classes)
        return rows if wanted.all() else rows.select(np.flatnonzero(wanted))


def export(
    store: Path,
    format: str,
    out: Path,
    choice: Choice | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, of: None,
) -> int:
    """Write the chosen nuclei of `store` to `out` and return their number.

    `progress` is called with the number of row groups that are done, and of all.
    """
    choice, writer = choice or Choice(), format_of(format)
    manifest = manifests.read(store)
    slide = manifest["slide"]
    size = (int(slide["width_px"]), int(slide["height_px"]))
    about = About(class_names(store), float(slide["mpp"]), str(slide["sha256"]), str(slide["file"]), size)
    unknown = [name for name in choice.classes if name not in about.classes]
    if unknown:
        raise UsageError(
            f"--class {unknown[0]}", "the store has no such class", f"it has {', '.join(about.classes)}"
        )
    if out.exists() and not overwrite:
        raise UsageError(out, "exists", "give another name, or --overwrite")
    written = 0

    def rows(reader: NucleiReader) -> Iterator[NucleiRows]:
        nonlocal written
        for done, group in enumerate(reader.each(choice.box_l0), start=1):
            chosen = choice.of(group)
            written += len(chosen)
            progress(done, reader.groups)
            yield chosen

    columns = list(dict.fromkeys(["class", "score", *writer.COLUMNS]))
    with NucleiReader(store, columns) as reader:
        if reader.rows != manifest["counts"]["nuclei"]:
            cause = f"holds {reader.rows:,} nuclei, its manifest says {manifest['counts']['nuclei']:,}"
            raise StorageError(store, cause, "`wsi-nuc verify` says what is wrong")
        with atomic_output(out) as output:
            writer.write(rows(reader), about, output)
    return written
