"""`wsi-nuc import` makes a store of another program's cells; `wsi-nuc export` writes a store's nuclei for one."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.options import Option
from wsi_nuc.errors import UsageError

if TYPE_CHECKING:
    from wsi_nuc.importing.build import Imported


def import_(
    cells: Annotated[
        Path,
        typer.Argument(
            help="QuPath GeoJSON, CellViT cells.json, TIAToolbox AnnotationStore (.db) or a SpatialData zarr.",
            show_default=False,
        ),
    ],
    slide: Annotated[str, Option(help="The slide that the cells belong to.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder that gets the SLIDE.zarr.")],
    format: Annotated[str, Option(help="auto, qupath, cellvit, tiatoolbox or spatialdata.")] = "auto",
    class_column: Annotated[str, Option(help="The property or column that names the class.")] = "",
    element: Annotated[str, Option(help="The shapes to take from a SpatialData zarr.")] = "",
    scale: Annotated[
        float, Option(min=0.001, max=1000, help="Level-0 pixels per pixel of the file, if it counts other pixels.")
    ] = 1.0,
    reader: Annotated[str, Option(help="Force a slide reader.")] = "auto",
    mpp: Annotated[float | None, Option(help="Microns per level-0 pixel, if the header has none or lies.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace another result of this slide.")] = False,
    json: Annotated[bool, Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Make a store of cells that another program found. All other commands, such as `features`, work on it.

    Broken outlines are mended and counted. Outlines that cannot be nuclei are left out and counted.
    """
    from wsi_nuc.importing.build import ImportRequest, import_cells
    from wsi_nuc.importing.record import Wanted

    done = import_cells(
        ImportRequest(
            cells=cells,
            slide=slide,
            out=out.expanduser().absolute(),
            format=format,
            wanted=Wanted(element, class_column),
            reader=reader,
            mpp=mpp,
            scale=scale,
            overwrite=overwrite,
        )
    )
    typer.echo(jsonlib.dumps(_document(done)) if json else _words(done))


def _document(done: Imported) -> dict[str, object]:
    counts = done.published.manifest["counts"]
    return {
        "store": str(done.published.path),
        "format": done.format,
        "status": "published" if done.published.new else "verified",
        "nuclei": counts["nuclei"],
        "classes": counts["classes"],
        "repaired": counts["repaired"],
        "dropped": counts["dropped"],
    }


def _words(done: Imported) -> str:
    counts = done.published.manifest["counts"]
    classes = ", ".join(f"{number:,} {name}" for name, number in counts["classes"].items())
    lines = [f"{done.published.path}: {counts['nuclei']:,} nuclei from {done.format} ({classes})"]
    if not done.published.new:
        lines.append("it was there already")
    return "\n".join([*lines, *_counted("mended", counts["repaired"]), *_counted("left out", counts["dropped"])])


def _counted(what: str, numbers: Mapping[str, int]) -> list[str]:
    return [f"{what}: {number:,} {why}" for why, number in numbers.items()]


def export(
    store: Annotated[Path, typer.Argument(help="A published result, such as results/slide.svs.zarr.")],
    to: Annotated[str, Option("--to", help="qupath: GeoJSON, one detection per nucleus.")],
    out: Annotated[Path, Option("--out", "-o", help="The file to write; .gz compresses it.")],
    classes: Annotated[list[str] | None, Option("--class", help="Only this class. May be repeated.")] = None,
    min_score: Annotated[float, Option(min=0, max=1, help="Only nuclei with at least this score.")] = 0.0,
    box: Annotated[str, Option(help="x0,y0,x1,y1 in level-0 pixels: only nuclei that reach into it.")] = "",
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file if it exists.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write the nuclei of a store for another program. The file appears complete, or not at all."""
    from rich.console import Console
    from rich.progress import Progress

    from wsi_nuc.exporting.export import Choice
    from wsi_nuc.exporting.export import export as run_export

    choice = Choice(tuple(classes or ()), min_score, _box(box))
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(out.name, total=None)

        def show(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        written = run_export(store, to, out.expanduser().absolute(), choice, overwrite, show)
    typer.echo(f"{out}: {written:,} nuclei")


def _box(text: str) -> tuple[float, float, float, float] | None:
    if not text:
        return None
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--box {text}", "is not four numbers", "give x0,y0,x1,y1 in level-0 pixels") from None
    if not (x0 < x1 and y0 < y1):
        raise UsageError(f"--box {text}", "encloses nothing", "give the upper left corner first") from None
    return x0, y0, x1, y1
