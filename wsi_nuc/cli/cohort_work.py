"""`wsi-nuc cohort run` and `retry`: one job."""

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
from wsi_nuc.errors import OK, UsageError

if TYPE_CHECKING:
    from wsi_nuc.cohort.recording import Told


def _command(name: str, about: str, again: bool) -> Callable[..., None]:
    """A command that works on a cohort. `again`: also on what failed."""

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
    from wsi_nuc.config import ConfigError, assigned_values

    try:
        return check_execution({**assigned_values(assign or []), **options}, cohort)
    except ConfigError as error:
        raise UsageError("configuration", str(error)) from None


@dataclass(frozen=True)
class _Job:
    """What one call asks for. `again`: also what failed; `execution`: options of how to go about it."""

    cohort: Path
    shard: str | None
    only: Sequence[str]
    again: bool
    execution: dict[str, Any]
    allow_failed: bool
    quiet: bool
    json: bool
    journal: Path | None


def _work(job: _Job) -> None:
    from wsi_nuc.cohort.state import exit_code

    told: list[Told] = []
    with stoppable(needed=["wsi_nuc.run"]):
        _each(job, told)
    bad = sum(slide.exit_code != OK for slide in told)
    if not (job.quiet or job.json):
        typer.echo(f"{len(told) - bad} of {len(told)} slides of this job are done")
    if bad:
        typer.echo(f"wsi-nuc: {bad} of {len(told)} slides are not, each named above", err=True)
    raise typer.Exit(exit_code(told, job.allow_failed))


def _each(job: _Job, told: list[Told]) -> None:
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
            told.append(slide)
            if slide.error and slide.new:
                typer.echo(f"{slide.state}: {slide.error}", err=True)
            if job.json:
                answer({key: value for key, value in asdict(slide).items() if key != "new"})


run = _command(
    "run",
    """Run what is not done yet, all of it or one share.

    Shares need no scheduler between them: start any number of jobs in any order, kill and repeat them.
    """,
    again=False,
)
retry = _command(
    "retry",
    """As run, and slides that failed or could not be read when the cohort was planned are tried again.""",
    again=True,
)
