"""`wsi-nuc cohort status`, `collect` and `report`: what there is."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from wsi_nuc.cli.cohort_options import AllowFailed, Filters, Folder, Json, Option
from wsi_nuc.cli.cohort_words import state_lines, status_words


def collect(
    cohort: Folder,
    csv: Annotated[bool, Option("--csv", help="Also cohort.csv, for spreadsheets.")] = False,
    allow_failed: AllowFailed = False,
    json: Json = False,
) -> None:
    """Write cohort.parquet (a row a slide, a row a patient) and cohort.h5ad (AnnData: slides x figures)."""
    from wsi_nuc.cohort.collect import collect as collect_all
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.state import counts, exit_code

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
    raise typer.Exit(exit_code(got.states, allow_failed))


def report(cohort: Folder) -> None:
    """Write report.html: status, reasons, distributions, outliers, thumbnails. One file that asks for no other."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.report import write_report
    from wsi_nuc.cohort.state import counts

    folder = CohortFolder(cohort.absolute())
    counted = counts(write_report(folder).states)
    typer.echo(f"{folder.report}: " + ", ".join(f"{count:,} {state}" for state, count in counted.items()))


def status(
    cohort: Folder,
    only: Filters = None,
    slides: Annotated[bool, Option("--slides", help="One line a slide, not only those that failed.")] = False,
    verify: Annotated[bool, Option("--verify", help="Check every file of every result against its hash.")] = False,
    allow_failed: AllowFailed = False,
    json: Json = False,
) -> None:
    """How many slides are done, pending, failed or refused; the last two are named."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.only import Only, select
    from wsi_nuc.cohort.plan import load
    from wsi_nuc.cohort.state import counts, exit_code, states

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
    raise typer.Exit(exit_code(found, allow_failed))
