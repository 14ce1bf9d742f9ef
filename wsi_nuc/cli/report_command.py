"""`wsi-nuc report`: one page per result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_nuc.cli.commands import code_of_all
from wsi_nuc.cli.options import Option
from wsi_nuc.errors import UsageError


def report(
    stores: Annotated[list[Path], typer.Argument(help="Published results, such as results/slide.svs.zarr.")],
    out: Annotated[
        Path | None, Option("--out", "-o", help="The page; default: SLIDE.report.html beside it.")
    ] = None,
    slide: Annotated[
        str | None, Option(help="The slide of the store; default: a file of its name beside it or here.")
    ] = None,
    reader: Annotated[str, Option(help="Force a slide reader.")] = "auto",
) -> None:
    """Write one self-contained HTML page per result: figures, density maps, nuclei of each class, quality checks.

    Without the slide the page lacks the pictures of single nuclei.
    """
    if len(stores) > 1 and (out is not None or slide is not None):
        raise UsageError(
            "--out and --slide", f"{len(stores)} results cannot share them", "give one store per call"
        )

    def write(store: Path) -> int:
        from wsi_nuc.report.page import write_report
        from wsi_nuc.run.job import slide_of

        path = write_report(store, slide_of(store, slide, reader), out.expanduser().absolute() if out else None)
        typer.echo(path)
        return 0

    raise typer.Exit(code_of_all(stores, write))
