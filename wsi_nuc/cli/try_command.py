"""`wsi-nuc try`: one field of a slide in seconds, before the run of an hour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_nuc.cli.options import Device, Option
from wsi_nuc.errors import UsageError


def try_(
    slide: Annotated[str, typer.Argument(help="A slide, as `wsi-nuc run` takes it.")],
    at: Annotated[str, Option("--at", help="x,y in level-0 pixels: the middle of the field.")] = "",
    cellular: Annotated[
        bool, Option("--most-cellular", help="The field with the most haematoxylin; the default without --at.")
    ] = False,
    names: Annotated[list[str] | None, Option("--model", help="Name or file; several stand side by side.")] = None,
    mpp: Annotated[float | None, Option(help="Microns per level-0 pixel, if the header has none or lies.")] = None,
    field: Annotated[float, Option(min=20, max=2000, help="Edge of the field in um.")] = 200.0,
    out: Annotated[Path | None, Option("--out", "-o", help="The picture; default: SLIDE.try.png here.")] = None,
    reader: Annotated[str, Option(help="Force a slide reader.")] = "auto",
    tissue: Annotated[str, Option(help="auto, none or a GeoJSON file.")] = "auto",
    device: Device = None,
    workers: Annotated[int | None, Option(min=1, help="Workers that the time is told for.")] = None,
) -> None:
    """Look at one field of a slide, with one model or several side by side.

    Gives a picture with outlines, counts per class, and how long the whole slide would take.
    """
    if at and cellular:
        raise UsageError("--at and --most-cellular", "name two fields", "give one of them")
    from contextlib import closing

    from wsi_nuc.models.registry import load_model
    from wsi_nuc.quality.trial import field_at, most_cellular, tried, within_a_tile
    from wsi_nuc.report.overlay import in_words, overlay
    from wsi_nuc.run.resources import usable_cpus
    from wsi_nuc.slides.mpp import require_mpp
    from wsi_nuc.slides.overview import overview
    from wsi_nuc.slides.registry import open_slide
    from wsi_nuc.store.durable import atomic_write
    from wsi_nuc.store.folders import made_folder
    from wsi_nuc.tissue.find import tissue_for
    from wsi_nuc.types import SlideRef

    target = (out or Path(f"{Path(slide).name}.try.png")).expanduser().absolute()
    many = workers or usable_cpus()
    with closing(open_slide(SlideRef(slide, reader, mpp))) as source:
        um = require_mpp(source.info)
        view = overview(source, um)
        area = tissue_for(view, tissue)
        models = [load_model(name, device or "cpu") for name in names or ["default"]]
        if at:
            box = field_at(source, um, _point(at), field)
        else:
            box = within_a_tile(source, um, most_cellular(source, view, area, field), models[0].spec)
        warm_up = device not in (None, "cpu")
        trials = [tried(source, um, area, box, model, warm_up) for model in models]
        picture = overlay(source, box, um, trials, many)
    atomic_write(made_folder(target.parent) / target.name, picture)
    for trial in trials:
        counts = ", ".join(f"{name} {count:,}" for name, count in trial.counts.items())
        whole = in_words(trial.slide_seconds(many))
        typer.echo(f"{trial.model}: {len(trial.nuclei):,} nuclei ({counts}); the whole slide takes {whole}")
    typer.echo(target)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--at {text}", "is not two numbers", "give x,y in level-0 pixels") from None
    return x, y
