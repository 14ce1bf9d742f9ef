"""`wsi-nuc cohort status`, `collect` and `report`: what is done, its tables and its page."""

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
    from wsi_nuc.cohort.state import ReadStates, State


def collect(
    cohort: Cohort,
    csv: Annotated[bool, Option("--csv", help="Also cohort.csv, for spreadsheets.")] = False,
    allow_failed: AllowFailed = False,
    json: CohortJson = False,
) -> None:
    """Write cohort.parquet (one row per slide and per patient), cohort.h5ad (AnnData: slides x figures) and
    patients.h5ad."""
    from wsi_nuc.cohort.collect import collect as collect_all
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.matrix import why_not
    from wsi_nuc.cohort.state import counts, exit_code

    folder = CohortFolder(cohort.absolute())
    got = collect_all(folder, csv)
    counted = counts(got.states)
    if json:
        tables = (folder.table, folder.anndata, folder.patients, *([folder.csv] if csv else []))
        files = [str(path) for path in tables]
        typer.echo(jsonlib.dumps({**counted, "patients": len(got.patients), "files": files}))
    else:
        size = f"{len(got.slides):,} slides and {len(got.patients):,} patients, {len(got.columns)} columns"
        with_nuclei = sum(not why_not(row) for row in got.slides)
        typer.echo(
            f"{folder.table}: {size}\n{folder.anndata}: {with_nuclei:,} slides that are done and have nuclei"
        )
    for slide in got.states:
        if slide.state != "done":
            typer.echo(f"{slide.state}: {slide.row.label} {slide.error}".rstrip(), err=True)
    raise typer.Exit(exit_code(got.states, allow_failed))


def report(cohort: Cohort) -> None:
    """Write report.html: status, reasons, distributions, outliers, thumbnails. One file that needs no other."""
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.report import write_report
    from wsi_nuc.cohort.state import counts

    folder = CohortFolder(cohort.absolute())
    counted = counts(write_report(folder).states)
    typer.echo(f"{folder.report}: " + ", ".join(f"{count:,} {state}" for state, count in counted.items()))


def status(
    cohort: Cohort,
    only: Filters = None,
    slides: Annotated[
        bool, Option("--slides", help="One line for every slide, not only for those with a message.")
    ] = False,
    verify: Annotated[bool, Option("--verify", help="Check every file of every result against its hash.")] = False,
    wait: Annotated[bool, Option("--wait", help="Wait until nothing is pending or running.")] = False,
    timeout: Annotated[
        float | None, Option(min=0, help="With --wait: after so many minutes it ends in any case, with 75.")
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
    chosen: Sequence[State] = select(states(folder, plan, plan.rows), [Only.parse(text) for text in only or []])
    if wait:
        rows = [state.row for state in chosen]
        chosen = _wait(lambda: states(folder, plan, rows), timeout)
    if verify:
        from wsi_nuc.cohort.state import verified

        chosen = verified(folder, chosen)
    lines = state_lines(chosen, every=slides)
    if json:
        typer.echo(jsonlib.dumps({**counts(chosen), "slides": lines}))
    else:
        typer.echo(status_words(counts(chosen), lines))
    raise typer.Exit(exit_code(chosen, allow_failed))


def _wait(read_states: ReadStates, minutes: float | None) -> Sequence[State]:
    from wsi_nuc.cohort.state import PENDING, RUNNING, counts, wait

    said = ""

    def tell(slides: Sequence[State]) -> None:
        nonlocal said
        standing = counts(slides)
        now = ", ".join(f"{count:,} {state}" for state, count in standing.items() if count)
        if standing[PENDING] and not standing[RUNNING]:
            now += "; no job is at work: they wait in the queue, or were cancelled"
        if now != said:
            typer.echo(f"{time.strftime('%H:%M:%S')} {now}", err=True)
        said = now

    with stoppable("The jobs go on; the same command waits again"):
        return wait(read_states, tell, 60 * minutes if minutes is not None else None)
