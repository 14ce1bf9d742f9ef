"""The command line: parse, call, print. Everything heavy is imported inside the commands."""

from __future__ import annotations

import sys

import typer

import wsi_nuc
from wsi_nuc.cli import cohort_plan, cohort_slurm, cohort_views, cohort_work
from wsi_nuc.cli.commands import info, pack, synth, unpack, verify
from wsi_nuc.cli.count_command import count
from wsi_nuc.cli.export_command import export
from wsi_nuc.cli.feature_commands import columns, features
from wsi_nuc.cli.import_command import import_
from wsi_nuc.cli.model_commands import models_app
from wsi_nuc.cli.report_command import report
from wsi_nuc.cli.run_command import run
from wsi_nuc.cli.train_commands import data_app, evaluate, train
from wsi_nuc.cli.try_command import try_
from wsi_nuc.cli.view_command import view
from wsi_nuc.errors import WsiNucError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Every nucleus of a whole-slide image: found, outlined, classified, verified.",
    epilog="Exit codes: 0 all done, 2 usage, 3 some slides failed (each named), 4 model, 5 storage, "
    "75 interrupted (the same command resumes).",
)
for command in (
    run, info, verify, pack, unpack, features, columns, export, count, report, view, synth, train, evaluate,
):  # fmt: skip
    app.command()(command)
app.command("import")(import_)
app.command("try")(try_)

cohort_app = typer.Typer(
    no_args_is_help=True,
    help="Thousands of slides as one piece of work: plan, run in shards, collect tables, report.",
    epilog="Exit codes: 0 every slide is published and verified, 2 usage, 3 all is finished, some slides are bad "
    "(each named; 0 with --allow-failed), 4 model, 5 storage, 75 work is left (the same command goes on).",
)
for cohort_command in (
    cohort_plan.plan,
    cohort_work.run,
    cohort_slurm.slurm,
    cohort_views.status,
    cohort_work.retry,
    cohort_views.collect,
    cohort_views.report,
):
    cohort_app.command()(cohort_command)

app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")
app.add_typer(cohort_app, name="cohort")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsi-nuc {wsi_nuc.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Entry point: every error that a user can act on is one line on standard error and an exit code."""
    try:
        app()
    except WsiNucError as error:
        print(f"wsi-nuc: {error}", file=sys.stderr)  # noqa: T201 - this is the printing layer
        sys.exit(error.exit_code)
