"""`wsi-nuc import`: cells from elsewhere become a store."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.options import Option

if TYPE_CHECKING:
    from wsi_nuc.importing.build import Imported


def import_(
    cells: Annotated[
        Path,
        typer.Argument(
            help="QuPath, CellViT or HoVer-Net JSON, TIAToolbox store (.db), SpatialData zarr or GeoParquet.",
            show_default=False,
        ),
    ],
    slide: Annotated[str, Option(help="The slide that the cells belong to.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder that gets the SLIDE.zarr.")],
    format: Annotated[
        str, Option(help="auto, qupath, cellvit, hovernet, tiatoolbox, spatialdata or geoparquet.")
    ] = "auto",
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
