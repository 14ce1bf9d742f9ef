"""`wsi-nuc cohort plan`: looks at every slide of a list and writes the plan."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.cohort_words import plan_words
from wsi_nuc.cli.options import AllowFailed, CohortJson, Option, Pack, Reader, Scheduler
from wsi_nuc.cli.stopping import stoppable

if TYPE_CHECKING:
    from wsi_nuc.cohort.plan import PlanRow
    from wsi_nuc.config import RunConfig


def plan(
    source: Annotated[str, typer.Argument(help="CSV with a column slide, a folder, or a quoted pattern.")],
    out: Annotated[Path, Option("--out", "-o", help="The cohort's folder.")],
    model: Annotated[str | None, Option(help="The model of slides for which the list names none.")] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda, cuda:N or all.")] = None,
    workers: Annotated[int | None, Option(min=1, help="Processes that look at slides.")] = None,
    scheduler: Scheduler = None,
    reader: Reader = None,
    tissue: Annotated[
        str | None, Option(help="auto, none or a GeoJSON file, for slides for which the list says nothing.")
    ] = None,
    labels: Annotated[bool | None, Option("--labels", help="Also write label images.")] = None,
    features: Annotated[bool | None, Option("--features", help="Also measure every nucleus.")] = None,
    allow_bad_tiles: Annotated[
        bool | None, Option("--allow-bad-tiles", help="Publish even if places could not be decoded.")
    ] = None,
    pack: Pack = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace another plan; results are kept.")] = False,
    config: Annotated[Path | None, Option("--config", help="YAML file, as for `wsi-nuc run`.")] = None,
    assign: Annotated[list[str] | None, Option("--set", help="key=value of the run's configuration.")] = None,
    allow_failed: AllowFailed = False,
    shard: Annotated[
        str | None,
        Option(
            "--shard",
            help="I/N: only look at every N-th slide, from the I-th on. Make the plan without it afterwards.",
        ),
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the slides that cannot run.")] = False,
    json: CohortJson = False,
) -> None:
    """Look at every slide once and write what will run, where it lands, and how long it takes.

    The CSV has a column slide and may have id, patient, mpp, roi, tissue and model; other columns are kept.
    Separators are commas, semicolons or tabs; relative paths count from the folder of the CSV. A slide that cannot
    run stays in the plan with its reason, and the exit code is 3 (0 with --allow-failed).

    After a stop the same command goes on where it was. With --shard several jobs look at a share each; the plan
    that is made afterwards only looks at the rest.
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
        "pack": pack,
    }
    from wsi_nuc.configuring import load_config

    settings = load_config(config, assign or [], given)
    with stoppable("Slides that were looked at are kept: the same command goes on"):
        if shard:
            refused = _inspect(source, settings, shard, quiet)
        else:
            refused = _make(source, settings, overwrite, quiet, json)
    from wsi_nuc.cohort.state import REFUSED, State, exit_code

    raise typer.Exit(exit_code((State(row, REFUSED) for row in refused), allow_failed))


def _make(source: str, settings: RunConfig, overwrite: bool, quiet: bool, json: bool) -> list[PlanRow]:
    """Make the plan itself. Returns the slides that cannot run."""
    from wsi_nuc.cli.cohort_words import InspectionProgress
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.plan import save, write_table
    from wsi_nuc.cohort.planning import make_plan
    from wsi_nuc.run.resources import usable_cpus

    folder = CohortFolder(settings.out)
    folder.open_results()
    made = make_plan(folder, source, settings, InspectionProgress(quiet), overwrite)
    save(folder, made, overwrite)
    write_table(folder, made)
    if json:
        typer.echo(jsonlib.dumps(made.document()))
    elif not quiet:
        typer.echo(plan_words(folder, made, settings.workers or usable_cpus()))
    return made.refused


def _inspect(source: str, settings: RunConfig, shard: str, quiet: bool) -> list[PlanRow]:
    """Look at one share of the slides. Returns those that cannot run."""
    from wsi_nuc.cli.cohort_words import InspectionProgress
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.planning import inspect_share
    from wsi_nuc.cohort.shards import Shard

    rows = inspect_share(
        CohortFolder(settings.out), source, settings, Shard.parse(shard), InspectionProgress(quiet)
    )
    refused = [row for row in rows if row.problem]
    if not quiet:
        able = f"{len(rows) - len(refused):,} of {len(rows):,} slides of this share can run"
        typer.echo(f"{able}; when all shares are looked at, make the plan without --shard")
    return refused
