"""`wsi-nuc run`: options in, progress to standard error, one JSON object per slide to standard output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_nuc.cli.stopping import answer, stoppable
from wsi_nuc.errors import OK, Interrupted, UsageError, overall_code

if TYPE_CHECKING:
    from wsi_nuc.config import RunConfig
    from wsi_nuc.run import SlideResult

Option = typer.Option


def run(
    slides: Annotated[list[str], typer.Argument(help="Slides: files, DICOM or OME-Zarr folders, URLs.")],
    out: Annotated[
        Path | None, Option("--out", "-o", help="Folder that gets a SLIDE.zarr per slide; default: results.")
    ] = None,
    model: Annotated[
        str | None, Option(help="A name from `wsi-nuc models` (default: default), or a checkpoint file.")
    ] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda, cuda:N or all (one worker a GPU).")] = None,
    workers: Annotated[
        int | None, Option(min=1, help="Worker processes; default: the CPUs this process may use.")
    ] = None,
    scheduler: Annotated[
        str | None, Option(help="serial, local, slurm or the ADDRESS of a Dask scheduler.")
    ] = None,
    reader: Annotated[str | None, Option(help="Force a slide reader instead of choosing by content.")] = None,
    mpp: Annotated[float | None, Option(help="Microns per level-0 pixel, if the header has none or lies.")] = None,
    tissue: Annotated[str | None, Option(help="auto, none (whole slide) or a GeoJSON file in level-0 px.")] = None,
    roi: Annotated[str | None, Option(help="GeoJSON file in level-0 px: only nuclei inside are wanted.")] = None,
    region_size: Annotated[
        int | None,
        Option(help="Edge of a region in pixels as read; default: by slide and workers. No result shows it."),
    ] = None,
    stage: Annotated[
        Path | None,
        Option(help="Folder on this machine's own disk: slides are copied there, and read from there."),
    ] = None,
    labels: Annotated[
        bool | None, Option("--labels", help="Also write a multiscale label image.", show_default=False)
    ] = None,
    features: Annotated[
        bool | None,
        Option("--features", help="Also measure every nucleus: shape, stain, texture, neighbours."),
    ] = None,
    embedding: Annotated[
        bool | None,
        Option("--embedding", help="Features, and the model's embedding at every nucleus (PromptNucSeg)."),
    ] = None,
    allow_bad_tiles: Annotated[
        bool | None,
        Option(
            "--allow-bad-tiles", help="Publish although places could not be decoded or computed; they are listed."
        ),
    ] = None,
    pack: Annotated[
        bool | None,
        Option("--pack", help="Publish each result as one file, SLIDE.zarr.zip."),
    ] = None,
    overwrite: Annotated[
        bool | None, Option("--overwrite", help="Replace a result made with other settings.")
    ] = None,
    config: Annotated[Path | None, Option("--config", help="YAML file with any of these options.")] = None,
    assign: Annotated[
        list[str] | None, Option("--set", help="key=value, for any key of the configuration.")
    ] = None,
    quiet: Annotated[bool | None, Option("--quiet", "-q", help="No progress, only warnings and errors.")] = None,
    json: Annotated[bool | None, Option("--json", help="One JSON object per slide on standard output.")] = None,
) -> None:
    """Find, outline and classify every nucleus of each slide; publish verified stores in results/.

    The default model tells epithelial, inflammatory, connective and other nuclei apart; `wsi-nuc models` lists the
    classes of every model. `make demo` in a checkout shows all of it on a drawn slide in about 90 seconds.
    """
    given = {
        "out": out,
        "model": model,
        "device": device,
        "workers": workers,
        "scheduler": scheduler,
        "reader": reader,
        "mpp": mpp,
        "tissue": tissue,
        "roi": roi,
        "region_size": region_size,
        "stage": stage,
        "labels": labels,
        "features": features,
        "embedding": embedding,
        "allow_bad_tiles": allow_bad_tiles,
        "pack": pack,
        "overwrite": overwrite,
        "quiet": quiet,
        "json": json,
    }
    results: list[SlideResult] = []
    answers = bool(json)

    def unanswered(stop: Interrupted) -> Iterator[dict[str, Any]]:
        from wsi_nuc.run import SlideResult

        left = list(slides)
        for result in results:
            left.remove(result.slide)
        for slide in left if answers else ():
            yield SlideResult(slide, "interrupted", error=str(stop), exit_code=stop.exit_code).as_json()

    with stoppable(needed=["wsi_nuc.run"], answers=unanswered):
        settings = settings_from(config, assign or [], given)
        answers = settings.answers
        _run_all(settings, slides, results)
    code = overall_code(result.exit_code for result in results)
    if code != OK and len(results) > 1:
        failed = sum(result.exit_code != OK for result in results)
        typer.echo(f"wsi-nuc: {failed} of {len(results)} slides failed, each named above", err=True)
    raise typer.Exit(code)


def settings_from(config: Path | None, assign: Sequence[str], given: dict[str, Any]) -> RunConfig:
    from wsi_nuc.config import ConfigError, load_config

    try:
        return load_config(config, assign, given)
    except ConfigError as error:
        raise UsageError("configuration", str(error)) from None


def _run_all(settings: RunConfig, slides: Sequence[str], results: list[SlideResult]) -> None:
    from wsi_nuc.cli.progress import progress
    from wsi_nuc.features.running import run_slides

    with progress(settings.quiet) as emit, closing(run_slides(settings, slides, emit)) as finished:
        for result in finished:
            results.append(result)
            if settings.answers:
                answer(result.as_json())
