"""`wsi-nuc cohort run` and `retry`: one job of a cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wsi_nuc.cli.options import (
    AllowFailed,
    Cohort,
    CohortAssign,
    CohortJson,
    CohortOverwrite,
    CohortQuiet,
    Device,
    Filters,
    Journal,
    Pack,
    Scheduler,
    Shards,
    Workers,
)
from wsi_nuc.cli.stopping import answer, stoppable
from wsi_nuc.errors import OK

if TYPE_CHECKING:
    from wsi_nuc.cohort.recording import SlideOutcome


def _command(name: str, about: str, again: bool) -> Callable[..., None]:
    """A command that runs slides of a cohort. `again`: also those that failed."""

    def command(
        cohort: Cohort,
        shard: Shards = None,
        only: Filters = None,
        device: Device = None,
        workers: Workers = None,
        scheduler: Scheduler = None,
        pack: Pack = None,
        overwrite: CohortOverwrite = None,
        assign: CohortAssign = None,
        allow_failed: AllowFailed = False,
        journal: Journal = None,
        quiet: CohortQuiet = False,
        json: CohortJson = False,
    ) -> None:
        execution = _execution(
            cohort, assign, device=device, workers=workers, scheduler=scheduler, pack=pack, overwrite=overwrite
        )
        _work(_Job(cohort, shard, only or [], again, execution, allow_failed, quiet, json, journal))

    command.__name__, command.__doc__ = name, about
    return command


def _execution(cohort: Path, assign: Sequence[str] | None, **options: Any) -> dict[str, Any]:
    from wsi_nuc.cohort.plan import check_execution
    from wsi_nuc.configuring import assigned_values

    return check_execution({**assigned_values(assign or []), **options}, cohort)


@dataclass(frozen=True)
class _Job:
    """What one call asks for."""

    cohort: Path
    shard: str | None
    only: Sequence[str]
    again: bool
    """Also run slides that failed."""
    execution: dict[str, Any]
    """Settings that say how to run."""
    allow_failed: bool
    quiet: bool
    json: bool
    journal: Path | None


def _work(job: _Job) -> None:
    from wsi_nuc.cohort.state import exit_code

    outcomes: list[SlideOutcome] = []
    with stoppable(needed=["wsi_nuc.run.session"]):
        _each(job, outcomes)
    bad = sum(slide.exit_code != OK for slide in outcomes)
    if not (job.quiet or job.json):
        typer.echo(f"{len(outcomes) - bad} of {len(outcomes)} slides of this job are done")
    if bad:
        typer.echo(f"wsi-nuc: {bad} of {len(outcomes)} slides are not, each named above", err=True)
    raise typer.Exit(exit_code(outcomes, job.allow_failed))


def _each(job: _Job, outcomes: list[SlideOutcome]) -> None:
    from wsi_nuc.cli.progress import journalled, progress
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.shards import Only, Shard
    from wsi_nuc.cohort.work import run_cohort

    shard, filters = Shard.parse(job.shard) if job.shard else None, [Only.parse(text) for text in job.only]
    folder = CohortFolder(job.cohort.absolute())
    with (
        progress(job.quiet) as emit,
        closing(
            run_cohort(folder, shard, filters, job.again, job.execution, journalled(emit, job.journal))
        ) as slides,
    ):
        for slide in slides:
            outcomes.append(slide)
            if slide.error and slide.new:
                typer.echo(f"{slide.state}: {slide.error}", err=True)
            if job.json:
                answer({key: value for key, value in asdict(slide).items() if key != "new"})


run = _command(
    "run",
    """Run what is not done yet, all of it or one share.

    Shares do not need a scheduler: start any number of jobs in any order, kill them and repeat them.
    """,
    again=False,
)
retry = _command(
    "retry",
    """As run, but also try slides again that failed, or that could not be read when the cohort was planned.""",
    again=True,
)
