"""`wsi-nuc view`: results in the browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.options import Option

if TYPE_CHECKING:
    from wsi_nuc.viewer.gallery import Gallery


def view(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="A result (SLIDE.zarr), two of one slide to compare, a folder of results, or a cohort."
        ),
    ],
    port: Annotated[int, Option(min=0, max=65535, help="Port on this machine; default: any that is free.")] = 0,
    no_browser: Annotated[bool, Option("--no-browser", help="Only print the address.")] = False,
    slide: Annotated[str | None, Option(help="Where the slide is now: a file, a folder or a URL.")] = None,
    slides: Annotated[Path | None, Option(help="Folder with the slides, if they were moved.")] = None,
    roi: Annotated[str | None, Option(help="The GeoJSON file that the run had as --roi, to draw it.")] = None,
) -> None:
    """Look at results in the browser: slide, nuclei, figures. Only this machine reaches it; nothing is written."""
    import asyncio

    from wsi_nuc.viewer.gallery import Gallery
    from wsi_nuc.viewer.server import listening, serve
    from wsi_nuc.viewer.slide import refuse_nonsense

    refuse_nonsense(slide, slides)
    folders = (slides.absolute(),) if slides else ()
    gallery = Gallery(results, slide, folders, roi)
    if len(gallery.places) == 1 and slide is None:
        gallery = _with_slide(gallery, results, folders, roi)
    taken = listening(port)

    def ready(address: str) -> None:
        typer.echo(f"{address}\nonly this machine can open it; Ctrl-C ends it")
        sys.stdout.flush()
        if not no_browser:
            _browse(address)

    try:
        asyncio.run(serve(gallery, taken, ready))
    except KeyboardInterrupt:
        typer.echo("")


def _with_slide(gallery: Gallery, results: list[Path], folders: tuple[Path, ...], roi: str | None) -> Gallery:
    """The same result; where its slide has moved, and somebody can answer, with its new path."""
    from wsi_nuc.viewer.gallery import Gallery

    (number,) = gallery.places
    known = gallery.opened(number).slide
    while not known.usable:
        typer.echo(f"wsi-nuc: {known.why}", err=True)
        if not sys.stdin.isatty():
            break
        path = typer.prompt("path of the slide now (empty: show the thumbnail)", default="", show_default=False)
        if not path:
            break
        gallery = Gallery(results, str(Path(path).expanduser()), folders, roi)
        known = gallery.opened(number).slide
    return gallery


def _browse(address: str) -> None:
    import webbrowser

    try:
        opened = webbrowser.open(address)
    except webbrowser.Error:
        opened = False
    if not opened:
        typer.echo(
            "no browser can be opened here; open the address yourself (from elsewhere: ssh -L PORT:localhost:PORT)"
        )
