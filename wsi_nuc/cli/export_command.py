"""`wsi-nuc export`: a store's nuclei for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.options import Option
from wsi_nuc.errors import UsageError

if TYPE_CHECKING:
    pass


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
