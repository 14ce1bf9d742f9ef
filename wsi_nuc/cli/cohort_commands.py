"""`wsi-nuc cohort` with its commands plan, run, slurm, status, retry, collect and report."""

from __future__ import annotations

import typer

from wsi_nuc.cli.cohort_plan import plan
from wsi_nuc.cli.cohort_slurm import slurm
from wsi_nuc.cli.cohort_views import collect, report, status
from wsi_nuc.cli.cohort_work import retry, run

cohort_app = typer.Typer(
    no_args_is_help=True,
    help="Thousands of slides as one piece of work: plan, run in shards, collect tables, report.",
    epilog="Exit codes: 0 every slide is published and verified, 2 usage, 3 all is finished, some slides are bad "
    "(each named; 0 with --allow-failed), 4 model, 5 storage, 75 work is left (the same command goes on).",
)
for command in (plan, run, slurm, status, retry, collect, report):
    cohort_app.command()(command)
