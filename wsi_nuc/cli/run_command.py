"""`wsi-nuc run`: options in, progress to standard error, one JSON object per slide to standard output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import typer

from wsi_nuc.cli.options import (
    AllowBadTiles,
    Assign,
    Config,
    Dab,
    DabVectors,
    Device,
    Embedding,
    Features,
    Json,
    Labels,
    Model,
    Mpp,
    Out,
    Overwrite,
    Pack,
    Quiet,
    Reader,
    RegionSize,
    Report,
    Roi,
    Scheduler,
    Slides,
    Stage,
    Tissue,
    Workers,
)
from wsi_nuc.cli.stopping import answer, stoppable
from wsi_nuc.errors import OK, Interrupted, WsiNucError, overall_code

if TYPE_CHECKING:
    from wsi_nuc.config import RunConfig
    from wsi_nuc.run.success_or_failure import SlideResult


def run(
    slides: Slides,
    out: Out = None,
    model: Model = None,
    device: Device = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    reader: Reader = None,
    mpp: Mpp = None,
    tissue: Tissue = None,
    roi: Roi = None,
    region_size: RegionSize = None,
    stage: Stage = None,
    labels: Labels = None,
    features: Features = None,
    embedding: Embedding = None,
    dab: Dab = None,
    dab_vectors: DabVectors = None,
    allow_bad_tiles: AllowBadTiles = None,
    pack: Pack = None,
    report: Report = None,
    overwrite: Overwrite = None,
    config: Config = None,
    assign: Assign = None,
    quiet: Quiet = None,
    json: Json = None,
) -> None:
    """Find, outline and classify every nucleus of each slide; publish verified stores in results/.

    The default model tells epithelial, inflammatory, connective and other nuclei apart; `wsi-nuc models` lists the
    classes of every model. `make demo` in a checkout shows all of it on a drawn slide in about 90 seconds.
    """
    # Every other parameter has the name of its key in the configuration.
    given = {name: value for name, value in locals().items() if name not in ("slides", "config", "assign")}
    results: list[SlideResult] = []
    answers = bool(json)

    def unanswered(stop: Interrupted) -> Iterator[dict[str, Any]]:
        from wsi_nuc.run.success_or_failure import SlideResult

        left = list(slides)
        for result in results:
            left.remove(result.slide)
        for slide in left if answers else ():
            yield SlideResult(slide, "interrupted", error=str(stop), exit_code=stop.exit_code).as_json()

    with stoppable(needed=["wsi_nuc.run.session"], answers=unanswered):
        from wsi_nuc.configuring import load_config

        settings = load_config(config, assign or [], given)
        answers = settings.answers
        _run_all(settings, slides, results)
    code = overall_code(result.exit_code for result in results)
    if code != OK and len(results) > 1:
        failed = sum(result.exit_code != OK for result in results)
        typer.echo(f"wsi-nuc: {failed} of {len(results)} slides failed, each named above", err=True)
    raise typer.Exit(code)


def _run_all(settings: RunConfig, slides: Sequence[str], results: list[SlideResult]) -> None:
    from wsi_nuc.cli.progress import progress
    from wsi_nuc.features.running import run_slides

    with progress(settings.quiet) as emit, closing(run_slides(settings, slides, emit)) as finished:
        for result in finished:
            results.append(_reported(settings, result) if settings.report else result)
            if settings.answers:
                answer(results[-1].as_json())


def _reported(settings: RunConfig, result: SlideResult) -> SlideResult:
    """The result, with its page beside it. Where the page cannot be written, the result says so."""
    from dataclasses import replace
    from pathlib import Path

    from wsi_nuc.report.page import write_report
    from wsi_nuc.run.job import reference

    if result.exit_code != OK:
        return result
    try:
        write_report(Path(result.store), reference(result.slide, settings), compared=True)
    except WsiNucError as error:
        typer.echo(f"wsi-nuc: {error}", err=True)
        return replace(result, error=str(error), exit_code=error.exit_code)
    return result
