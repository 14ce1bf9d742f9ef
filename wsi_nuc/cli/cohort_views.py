"""`wsi-nuc cohort status`, `collect` and `report`: what there is."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.cohort_words import state_lines, status_words
from wsi_nuc.cli.options import AllowFailed, Cohort, CohortJson, Filters, Option
from wsi_nuc.cli.stopping import stoppable

if TYPE_CHECKING:
    from wsi_nuc.cohort.state import Look, State


def collect(
    cohort: Cohort,
    csv: Annotated[bool, Option("--csv", help="Also cohort.csv, for spreadsheets.")] = False,
    allow_failed: AllowFailed = False,
    json: CohortJson = False,
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


def report(cohort: Cohort) -> None:
    """Write report.html: status, reasons, distributions, outliers, thumbnails. One file that asks for no other."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.report import write_report
    from wsi_nuc.cohort.state import counts

    folder = CohortFolder(cohort.absolute())
    counted = counts(write_report(folder).states)
    typer.echo(f"{folder.report}: " + ", ".join(f"{count:,} {state}" for state, count in counted.items()))


def status(
    cohort: Cohort,
    only: Filters = None,
    slides: Annotated[bool, Option("--slides", help="One line a slide, not only those with news.")] = False,
    verify: Annotated[bool, Option("--verify", help="Check every file of every result against its hash.")] = False,
    wait: Annotated[bool, Option("--wait", help="End when nothing is pending or running.")] = False,
    timeout: Annotated[
        float | None, Option(min=0, help="With --wait: minutes after which it ends in any case, with 75.")
    ] = None,
    allow_failed: AllowFailed = False,
    json: CohortJson = False,
) -> None:
    """How many slides are done, running, pending, failed or refused; where they run, and why they do not."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.plan import load
    from wsi_nuc.cohort.shards import Only, select
    from wsi_nuc.cohort.state import counts, exit_code, states

    folder = CohortFolder(cohort.absolute())
    plan = load(folder)
    found: Sequence[State] = select(states(folder, plan, plan.rows), [Only.parse(text) for text in only or []])
    if wait:
        rows = [state.row for state in found]
        found = _wait(lambda: states(folder, plan, rows), timeout)
    if verify:
        from wsi_nuc.cohort.verify import verified

        found = verified(folder, found)
    lines = state_lines(found, every=slides)
    if json:
        typer.echo(jsonlib.dumps({**counts(found), "slides": lines}))
    else:
        typer.echo(status_words(counts(found), lines))
    raise typer.Exit(exit_code(found, allow_failed))


def _wait(look: Look, minutes: float | None) -> Sequence[State]:
    from wsi_nuc.cohort.state import counts, wait

    said = ""

    def tell(found: Sequence[State]) -> None:
        nonlocal said
        now = ", ".join(f"{count:,} {state}" for state, count in counts(found).items() if count)
        if now != said:
            typer.echo(f"{time.strftime('%H:%M:%S')} {now}", err=True)
        said = now

    with stoppable("The jobs go on without it: the same command waits on"):
        return wait(look, tell, 60 * minutes if minutes is not None else None)
