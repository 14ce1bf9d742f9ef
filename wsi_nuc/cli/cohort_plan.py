"""`wsi-nuc cohort plan`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from wsi_nuc.cli.cohort_options import AllowFailed, Json, Option
from wsi_nuc.cli.cohort_words import plan_words
from wsi_nuc.cli.run_command import interrupt_on_signals, leave, settings_from
from wsi_nuc.errors import Interrupted


def plan(
    source: Annotated[str, typer.Argument(help="CSV with a column slide, a folder, or a quoted pattern.")],
    out: Annotated[Path, Option("--out", "-o", help="The cohort's folder.")],
    model: Annotated[str | None, Option(help="For slides without a model of their own in the list.")] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda, cuda:N or all.")] = None,
    workers: Annotated[int | None, Option(min=1, help="Processes that look at slides.")] = None,
    scheduler: Annotated[
        str | None, Option(help="serial, local, slurm or the ADDRESS of a Dask scheduler.")
    ] = None,
    reader: Annotated[str | None, Option(help="Force a slide reader instead of choosing by content.")] = None,
    tissue: Annotated[
        str | None, Option(help="auto, none or a GeoJSON file, where the list says nothing.")
    ] = None,
    labels: Annotated[bool | None, Option("--labels", help="Also write label images.")] = None,
    features: Annotated[bool | None, Option("--features", help="Also measure every nucleus.")] = None,
    allow_bad_tiles: Annotated[
        bool | None, Option("--allow-bad-tiles", help="Publish although tiles could not be decoded.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace another plan; results are kept.")] = False,
    config: Annotated[Path | None, Option("--config", help="YAML file, as for `wsi-nuc run`.")] = None,
    assign: Annotated[list[str] | None, Option("--set", help="key=value of the run's configuration.")] = None,
    allow_failed: AllowFailed = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the slides that cannot run.")] = False,
    json: Json = False,
) -> None:
    """Look at every slide once and write what will run, where it lands, and how long it takes.

    Columns: slide, and if wanted id, patient, mpp, roi, tissue, model; others are kept. Separators are commas,
    semicolons or tabs; relative paths count from the folder of the CSV. A slide that cannot run stays in the plan
    with its reason, and the exit code is 3 (0 with --allow-failed).
    """
    given = {
        "out": out,
        "model": model,
        "device": device,
        "workers": workers,
        "scheduler": scheduler,
        "reader": reader,
        "tissue": tissue,
        "labels": labels,
        "features": features,
        "allow_bad_tiles": allow_bad_tiles,
    }
    settings = settings_from(config, assign or [], given)
    from wsi_nuc.cli.cohort_progress import looking
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.plan import save
    from wsi_nuc.cohort.plan_table import write_table
    from wsi_nuc.cohort.planning import make_plan
    from wsi_nuc.cohort.state import REFUSED, State, exit_code
    from wsi_nuc.run.resources import usable_cpus
    from wsi_nuc.store.paths import check_writable

    interrupt_on_signals()
    folder = CohortFolder(settings.out)
    try:
        check_writable(folder.results)
        with looking(quiet) as told:
            made = make_plan(source, settings, told)
        save(folder, made, overwrite)
        write_table(folder, made)
    except Interrupted as stop:
        leave(stop, [], False)
    for row in made.refused:
        typer.echo(f"wsi-nuc: {row.label}: {row.problem}", err=True)
    if json:
        typer.echo(jsonlib.dumps(made.document()))
    elif not quiet:
        typer.echo(plan_words(folder, made, settings.workers or usable_cpus()))
    raise typer.Exit(exit_code((State(row, REFUSED) for row in made.refused), allow_failed))
