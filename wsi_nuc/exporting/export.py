"""Writes published stores to files for another program, one row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import StorageError, UsageError, choices
from wsi_nuc.exporting.output import atomic_output, atomic_path
from wsi_nuc.exporting.registry import MEASURED, About, Format, format_of, kind_of
from wsi_nuc.store import durable, layout
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.nuclei_rows import NucleiReader, NucleiRows, of_classes
from wsi_nuc.store.place import open_folder
from wsi_nuc.store.reading import class_names
from wsi_nuc.store.verify import is_result, refuse_damaged


@dataclass(frozen=True, slots=True)
class Choice:
    """Which nuclei are wanted, and what of them; all by default."""

    classes: tuple[str, ...] = ()
    """Names of classes; empty for all."""
    min_score: float = 0.0
    """0 to 1."""
    box_l0: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 in level-0 pixels: only nuclei whose boxes meet it."""
    measured: tuple[str, ...] = ("*",)
    """Names of columns of the table of nuclei, or patterns with * and ?; for formats that write these columns."""

    def of(self, rows: NucleiRows) -> NucleiRows:
        wanted = rows.columns["score"] >= self.min_score
        if self.classes:
            wanted &= of_classes(rows.columns["class"], self.classes)
        return rows if wanted.all() else rows.select(np.flatnonzero(wanted))


def planned(
    stores: Sequence[Path], format: str, out: Path, choice: Choice | None = None, overwrite: bool = False
) -> list[tuple[Path, Path]]:
    """Each store and the place of its file. Mistakes in the call are found here, before anything is written.

    Of several stores, some may lack a class that is asked for. A store that cannot be read is left to `export_to`.
    """
    choice, plan = choice or Choice(), list(zip(stores, targets(stores, format, out), strict=True))
    readable = [store for store in stores if not manifests.load(store)[1]]
    if readable:
        _refuse_unknown("--class", choice.classes, [name for store in readable for name in class_names(store)])
    for store in readable:
        _refuse_classes(store, format, choice)
    for _, place in plan:
        _refuse_existing(place, format_of(format), overwrite)
    return plan


def targets(stores: Sequence[Path], format: str, out: Path) -> list[Path]:
    """Where each store goes: to `out` itself if there is one store and `out` is not a folder yet; else into the
    folder `out`, with the name of its slide. A folder that is an export of this format is `out` itself."""
    writer = format_of(format)
    for folder in (out, *out.parents):
        if folder.exists() and is_result(folder):
            raise UsageError(folder, "is a result of wsi-nuc, and no export goes into one", "choose another --out")
    if len(stores) == 1 and (not out.is_dir() or _is_export(writer, out)):
        return [out]
    names = [f"{_slide_name(store)}{writer.SUFFIX}" for store in stores]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UsageError(out / twice, "two of the stores have this slide name", "export them to different folders")
    return [out / name for name in names]


def export(store: Path, format: str, out: Path, choice: Choice | None = None, overwrite: bool = False) -> int:
    """Write the chosen nuclei of one store to `out` and return their number."""
    ((_, place),) = planned([store], format, out, choice, overwrite)
    return export_to(store, format, place, choice)


def export_to(
    store: Path,
    format: str,
    out: Path,
    choice: Choice | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> int:
    """The same for a store and a place of a plan, whatever is there.

    `progress` is called with the number of row groups that are done, and of all.
    """
    writer, choice = format_of(format), choice or Choice()
    manifest, written = manifests.read(store), 0

    def rows(reader: NucleiReader) -> Iterator[NucleiRows]:
        nonlocal written
        yield reader.none()
        groups = reader.groups if choice.box_l0 is None else len(reader.meeting(choice.box_l0))
        for done, group in enumerate(reader.each(choice.box_l0), start=1):
            chosen = choice.of(group)
            written += len(chosen)
            progress(done, groups)
            yield chosen

    with NucleiReader(store, _columns(store, writer, choice)) as reader:
        refuse_damaged(store, manifest, [layout.NUCLEI_SHAPES, layout.NUCLEI_TABLE])
        if reader.rows != manifest["counts"]["nuclei"]:
            cause = f"holds {reader.rows:,} nuclei, its manifest says {manifest['counts']['nuclei']:,}"
            raise StorageError(store, cause, "`wsi-nuc verify` says what is wrong")
        about = _about(store, manifest, reader)
        if kind_of(writer) == "bytes":
            with atomic_output(out) as output:
                writer.write(rows(reader), about, output)
        else:
            with atomic_path(out) as path:
                writer.write_path(rows(reader), about, path)
    if beside := _beside(writer, out):
        for path, data in zip(beside, writer.beside(about, out.name), strict=True):
            durable.atomic_write(open_folder(path.parent) / path.name, data)
    return written


def _about(store: Path, manifest: dict[str, Any], reader: NucleiReader) -> About:
    slide = manifest["slide"]
    return About(
        store=store,
        classes=class_names(store),
        mpp=float(slide["mpp"]),
        slide_sha256=str(slide["sha256"]),
        slide=slide,
        columns=reader.columns,
        units=reader.units,
    )


def _columns(store: Path, writer: Format, choice: Choice) -> list[str]:
    """What to read: the columns of the format, with the measured ones that are wanted."""
    with NucleiReader(store) as reader:
        beside, table = reader.shape_columns, reader.measured_columns
    _refuse_unknown("--columns", [name for name in choice.measured if not set("*?[") & set(name)], table)
    measured = [
        name
        for name in table
        if name not in beside and any(fnmatchcase(name, pattern) for pattern in choice.measured)
    ]
    names = [column for name in writer.COLUMNS for column in (measured if name == MEASURED else [name])]
    return list(dict.fromkeys([*names, "class", "score"]))


def _refuse_unknown(option: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            kind = "class" if option == "--class" else "column in its table of nuclei"
            cause = f"the store has no such {kind}"
            raise UsageError(f"{option} {name}", cause, choices(name, dict.fromkeys(known), "it has"))


def _refuse_classes(store: Path, format: str, choice: Choice) -> None:
    """Refuse a class that nuclei have and that the format cannot hold."""
    counts, holds = manifests.read(store)["counts"].get("classes", {}), getattr(format_of(format), "holds", None)
    for name in class_names(store):
        if holds is None or holds(name) or counts.get(name, 1) == 0 or name not in (choice.classes or [name]):
            continue
        remedy = "choose other classes with --class, or another format"
        raise UsageError(f"--to {format}", f"cannot hold a class called {name!r}", remedy)


def _is_export(writer: Format, out: Path) -> bool:
    return kind_of(writer) == "folder" and (out / writer.MARK).exists()


def _refuse_existing(out: Path, writer: Format, overwrite: bool) -> None:
    if kind_of(writer) != "bytes" and out.suffix == ".gz":
        raise UsageError(out, "this format cannot be compressed by .gz", f"let the name end in {writer.SUFFIX}")
    if out.is_dir() and not _is_export(writer, out):
        raise UsageError(out, "is a folder with something else in it", "give another name")
    for path in (out, *_beside(writer, out)):
        if path.exists() and not overwrite:
            raise UsageError(path, "exists", "give another name, or --overwrite")


def _beside(writer: Format, out: Path) -> list[Path]:
    return [out.with_name(out.name + suffix) for suffix in getattr(writer, "BESIDE", ())]


def _slide_name(store: Path) -> str:
    return store.name.removesuffix(".zip").removesuffix(".zarr")
