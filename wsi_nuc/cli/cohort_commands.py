"""`wsi-nuc cohort`: plan, run, status, retry, collect, report."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_nuc.cli.cohort_words import plan_words, state_lines, status_words
from wsi_nuc.cli.run_command import answer, exit_code, interrupt_on_signals, leave, settings_from
from wsi_nuc.errors import OK, SLIDES, Interrupted, UsageError

if TYPE_CHECKING:
    from wsi_nuc.cohort.work import Told

Option = typer.Option
Folder = Annotated[Path, typer.Argument(help="The cohort's folder, as given to `cohort plan --out`.")]
Json = Annotated[bool, Option("--json", help="JSON on standard output.")]

cohort_app = typer.Typer(
    no_args_is_help=True,
    help="Thousands of slides as one piece of work: plan, run in shards, collect tables, report.",
    epilog="Exit codes: 0 every slide is published and verified, 2 usage, 3 some slides cannot be (each named), "
    "4 model, 5 storage, 75 work is left (the same command goes on).",
)


@cohort_app.command("plan")
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
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the slides that cannot run.")] = False,
    json: Json = False,
) -> None:
    """Look at every slide once and write what will run, where it lands, and how long it takes.

    Columns: slide, and if wanted id, patient, mpp, roi, tissue, model; others are kept. Separators are commas,
    semicolons or tabs; relative paths count from the folder of the CSV. A slide that cannot run stays in the plan
    with its reason, and the exit code is 3.
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
    raise typer.Exit(SLIDES if made.refused else OK)


Shards = Annotated[str | None, Option("--shard", help="I/N: the I-th of N shares, from 1; balanced by area.")]
Filters = Annotated[
    list[str] | None,
    Option("--only", help="COLUMN=PATTERN with * and ?, of any column or state; may be repeated."),
]
Device = Annotated[str | None, Option(help="auto, cpu, cuda, cuda:N or all (one worker a GPU).")]
Workers = Annotated[int | None, Option(min=1, help="Worker processes; default: the CPUs this process may use.")]
Scheduler = Annotated[str | None, Option(help="serial, local, slurm or the ADDRESS of a Dask scheduler.")]
Overwrite = Annotated[bool | None, Option("--overwrite", help="Replace results made with other settings.")]
Assign = Annotated[list[str] | None, Option("--set", help="key=value of how to run, such as scratch=/tmp/parts.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress, only warnings and errors.")]


@cohort_app.command("run")
def run(
    cohort: Folder,
    shard: Shards = None,
    only: Filters = None,
    device: Device = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    overwrite: Overwrite = None,
    assign: Assign = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run what is not done yet, all of it or one share.

    Shares need no scheduler between them: start any number of jobs in any order, kill and repeat them.
    """
    execution = _execution(
        cohort, assign, device=device, workers=workers, scheduler=scheduler, overwrite=overwrite
    )
    _work(cohort, (shard, only or []), False, execution, (quiet, json))


@cohort_app.command("retry")
def retry(
    cohort: Folder,
    shard: Shards = None,
    only: Filters = None,
    device: Device = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    overwrite: Overwrite = None,
    assign: Assign = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """As run, and slides that failed or could not be read when the cohort was planned are tried again."""
    execution = _execution(
        cohort, assign, device=device, workers=workers, scheduler=scheduler, overwrite=overwrite
    )
    _work(cohort, (shard, only or []), True, execution, (quiet, json))


def _execution(cohort: Path, assign: Sequence[str] | None, **options: Any) -> dict[str, Any]:
    from wsi_nuc.cohort.plan import check_execution
    from wsi_nuc.config import ConfigError, assigned_values

    try:
        return check_execution({**assigned_values(assign or []), **options}, cohort)
    except ConfigError as error:
        raise UsageError("configuration", str(error)) from None


def _work(
    cohort: Path,
    share: tuple[str | None, Sequence[str]],
    again: bool,
    execution: dict[str, Any],
    output: tuple[bool, bool],
) -> None:
    """The job itself; `output`: quiet, json."""
    interrupt_on_signals()
    quiet, json = output
    told: list[Told] = []
    try:
        _each(cohort, share, again, execution, output, told)
    except Interrupted as stop:
        leave(stop, [], False)
    bad = [one for one in told if one.exit_code != OK]
    if not (quiet or json):
        typer.echo(f"{len(told) - len(bad)} of {len(told)} slides of this job are done")
    if bad:
        typer.echo(f"wsi-nuc: {len(bad)} of {len(told)} slides are not, each named above", err=True)
    raise typer.Exit(exit_code([SLIDES if one.state == "refused" else one.exit_code for one in told]))


def _each(
    cohort: Path,
    share: tuple[str | None, Sequence[str]],
    again: bool,
    execution: dict[str, Any],
    output: tuple[bool, bool],
    told: list[Told],
) -> None:
    from wsi_nuc.cli.progress import progress
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.only import Only
    from wsi_nuc.cohort.shards import Shard
    from wsi_nuc.cohort.work import run_cohort

    shard, filters = Shard.parse(share[0]) if share[0] else None, [Only.parse(text) for text in share[1]]
    folder = CohortFolder(cohort.absolute())
    with (
        progress(output[0]) as emit,
        closing(run_cohort(folder, shard, filters, again, execution, emit)) as slides,
    ):
        for one in slides:
            told.append(one)
            if one.error and one.new:
                typer.echo(f"{one.state}: {one.error}", err=True)
            if output[1]:
                answer({key: value for key, value in asdict(one).items() if key != "new"})


@cohort_app.command("collect")
def collect(
    cohort: Folder,
    csv: Annotated[bool, Option("--csv", help="Also cohort.csv, for spreadsheets.")] = False,
    json: Json = False,
) -> None:
    """Write cohort.parquet (a row a slide, a row a patient) and cohort.h5ad (AnnData: slides x figures)."""
    from wsi_nuc.cohort.collect import collect as collect_all
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.state import counts
    from wsi_nuc.cohort.state import exit_code as code_of

    folder = CohortFolder(cohort.absolute())
    got = collect_all(folder, csv)
    counted = counts(got.states)
    if json:
        files = [str(path) for path in (folder.table, folder.anndata, *([folder.csv] if csv else []))]
        typer.echo(jsonlib.dumps({**counted, "patients": len(got.patients), "files": files}))
    else:
        size = f"{len(got.slides):,} slides and {len(got.patients):,} patients, {len(got.columns)} columns"
        typer.echo(f"{folder.table}: {size}\n{folder.anndata}: {counted['done']:,} slides that are done")
    missing = [one for one in got.states if one.state != "done"]
    for one in missing:
        typer.echo(f"{one.state}: {one.row.label} {one.error}".rstrip(), err=True)
    raise typer.Exit(code_of(got.states))


@cohort_app.command("report")
def report(cohort: Folder) -> None:
    """Write report.html: status, reasons, distributions, outliers, thumbnails. One file that asks for no other."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.report import write_report
    from wsi_nuc.cohort.state import counts

    folder = CohortFolder(cohort.absolute())
    counted = counts(write_report(folder).states)
    typer.echo(f"{folder.report}: " + ", ".join(f"{count:,} {state}" for state, count in counted.items()))


@cohort_app.command("status")
def status(
    cohort: Folder,
    only: Filters = None,
    slides: Annotated[bool, Option("--slides", help="One line a slide, not only those that failed.")] = False,
    verify: Annotated[bool, Option("--verify", help="Check every file of every result against its hash.")] = False,
    json: Json = False,
) -> None:
    """How many slides are done, pending, failed or refused; the last two are named."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.only import Only, select
    from wsi_nuc.cohort.plan import load
    from wsi_nuc.cohort.state import counts, states
    from wsi_nuc.cohort.state import exit_code as code_of

    folder = CohortFolder(cohort.absolute())
    plan = load(folder)
    found = select(states(folder, plan, plan.rows), [Only.parse(text) for text in only or []])
    if verify:
        from wsi_nuc.cohort.verify import verified

        found = verified(folder, found)
    lines = state_lines(found, every=slides)
    if json:
        typer.echo(jsonlib.dumps({**counts(found), "slides": lines}))
    else:
        typer.echo(status_words(counts(found), lines))
    raise typer.Exit(code_of(found))
