"""`wsi-nuc export`: a store's nuclei for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_nuc.cli.commands import code_of_all
from wsi_nuc.cli.options import Option
from wsi_nuc.cli.stopping import stoppable
from wsi_nuc.errors import OK, UsageError
from wsi_nuc.exporting.registry import FORMATS


def export(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE", help="Published results, such as results/slide.svs.zarr.", show_default=False
        ),
    ],
    to: Annotated[str, Option("--to", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.", show_default=False)],
    out: Annotated[
        Path,
        Option("--out", "-o", help="The file to write; .gz compresses text. For several stores a folder."),
    ],
    classes: Annotated[list[str] | None, Option("--class", help="Only this class. May be repeated.")] = None,
    min_score: Annotated[float, Option(min=0, max=1, help="Only nuclei with at least this score.")] = 0.0,
    box: Annotated[str, Option(help="x0,y0,x1,y1 in level-0 pixels: only nuclei that reach into it.")] = "",
    columns: Annotated[
        str,
        Option(help="Which columns of the table of nuclei, with * and ?, such as 'h_*,solidity'; none for none."),
    ] = "*",
    overwrite: Annotated[bool, Option("--overwrite", help="Replace what exists.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write the nuclei of stores for another program. A file appears complete, or not at all.

    With one store, --out is the file. With several, or where --out is a folder that exists, each gets a file in
    it, named after its slide. docs/exports.md says what each format is and how to open it.
    """
    from rich.console import Console
    from rich.progress import Progress

    from wsi_nuc.exporting.export import Choice, export_to, planned

    wanted = () if columns == "none" else tuple(name.strip() for name in columns.split(","))
    choice = Choice(tuple(classes or ()), min_score, _box(box), wanted)
    with (
        stoppable("Finished files are kept: name the other stores, and the command goes on"),
        Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar,
    ):

        def write(pair: tuple[Path, Path]) -> int:
            store, file = pair
            task = bar.add_task(file.name, total=None)
            nuclei = export_to(
                store, to, file, choice, lambda done, of: bar.update(task, completed=done, total=of)
            )
            typer.echo(f"{file}: {nuclei:,} nuclei")
            return OK

        code = code_of_all(planned(stores, to, out.expanduser().absolute(), choice, overwrite), write)
    raise typer.Exit(code)


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
