"""`wsi-nuc cohort slurm`: the scripts that run a cohort on a cluster."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_nuc.cli.options import Option
from wsi_nuc.errors import UsageError

if TYPE_CHECKING:
    from wsi_nuc.cohort.plan import Plan
    from wsi_nuc.cohort.queue.slurm_pbs_lsf import Request

COMMAND = "cohort slurm"


def slurm(
    cohort: Annotated[Path, typer.Argument(help="The cohort's folder; all nodes have to see it.")],
    submit: Annotated[bool, Option("--submit", help="Also hand the scripts to Slurm.")] = False,
    max_jobs: Annotated[int, Option(min=1, help="Largest number of tasks, however large the cohort.")] = 200,
    tasks: Annotated[int | None, Option(min=1, help="Number of tasks, in place of the estimate.")] = None,
    time: Annotated[str, Option(help="Time limit of a task, such as 2h, 90m or 02:00:00.")] = "2h",
    cpus_per_task: Annotated[int, Option(min=1, help="CPUs per task, each with a worker.")] = 4,
    gpus_per_task: Annotated[int, Option(min=0, help="GPUs per task, each with a worker.")] = 0,
    memory: Annotated[int | None, Option(min=1, help="GiB of memory per task, in place of the estimate.")] = None,
    at_once: Annotated[int, Option(min=0, help="Tasks that may run at the same time; 0: any number.")] = 0,
    partition: Annotated[str, Option(help="Partition or queue.")] = "",
    account: Annotated[str, Option(help="Account or project.")] = "",
    stage: Annotated[
        str, Option(help="Folder on the node's own disk that slides are copied to, such as '$TMPDIR'.")
    ] = "",
    prologue: Annotated[
        list[str] | None, Option(help="Shell line before the program, such as module load.")
    ] = None,
    directive: Annotated[list[str] | None, Option(help="Another directive, such as --constraint=avx2.")] = None,
    program: Annotated[
        str, Option(help="How a task starts this program, such as 'apptainer exec wsi-nuc.sif wsi-nuc'.")
    ] = "",
    restarts: Annotated[
        int,
        Option(min=1, help="A task gives up after so many stops in a row without a finished region."),
    ] = 3,
    allow_failed: Annotated[
        bool, Option("--allow-failed", help="A task does not fail if slides are known to be bad.")
    ] = False,
    retry: Annotated[
        bool, Option("--retry", help="Slides that failed or were refused are tried again, as by `cohort retry`.")
    ] = False,
    queue: Annotated[
        str, Option(help="slurm, pbs or lsf; pbs and lsf are written by their manuals and untested.")
    ] = "slurm",
) -> None:
    """Write the job array of a cohort, and the job that collects and reports after it; --submit queues both.

    The number of tasks and their memory come from the plan's estimate. A task that runs out of time, is preempted
    or loses its node goes on from its last region. The scripts lie in COHORT/queue, logs in COHORT/queue/logs.
    """
    from wsi_nuc.cohort.folder import CohortFolder
    from wsi_nuc.cohort.plan import load
    from wsi_nuc.cohort.queue.scripts import write_scripts
    from wsi_nuc.cohort.queue.slurm_pbs_lsf import QUEUES, Request, check_time, memory_gib, seconds_of, tasks_of
    from wsi_nuc.executors import slurm_commands

    _check_queue(queue, submit)
    folder = CohortFolder(cohort.absolute())
    plan, seconds = load(folder), seconds_of(time)
    check_time(plan, seconds)
    request = Request(
        tasks=tasks or tasks_of(plan, cpus_per_task, seconds, max_jobs),
        cpus=cpus_per_task,
        gpus=gpus_per_task,
        memory_gib=memory or memory_gib(plan, gpus_per_task or cpus_per_task),
        seconds=seconds,
        at_once=at_once,
        partition=partition,
        account=account,
        stage=stage,
        prologue=prologue or [],
        directives=directive or [],
        program=program or _this_program(),
        restarts=restarts,
        allow_failed=allow_failed,
        retry=retry,
    )
    most = slurm_commands.largest_array(COMMAND) if submit else 0
    scripts = write_scripts(folder, QUEUES[queue], request, most)
    _tell(plan, request, folder.root, QUEUES[queue].tried)
    if not submit:
        typer.echo(f"scripts  {scripts.array}, {scripts.collect.name}\nsubmit   bash {scripts.submit}")
        return
    remedy = "give an --account and a --partition that you may submit to, or change what else it names"
    slurm_commands.refuse_what_slurm_refuses(COMMAND, scripts.array.read_text(), remedy)
    typer.echo(f"queued   {slurm_commands.submit(COMMAND, scripts.submit)}")


def _check_queue(queue: str, submit: bool) -> None:
    from wsi_nuc.cohort.queue.slurm_pbs_lsf import QUEUES
    from wsi_nuc.executors import slurm_commands

    if queue not in QUEUES:
        raise UsageError(f"--queue {queue}", "there is no such queue", f"known: {', '.join(QUEUES)}")
    if submit and queue != "slurm":
        raise UsageError(
            "--submit", f"nobody has tried it with {queue}", "leave it out, and read the scripts first"
        )
    if submit:
        slurm_commands.check_slurm(COMMAND)


def _this_program() -> str:
    """This program, by its full path: a login on the node may find another one first."""
    installed = shutil.which("wsi-nuc", path=str(Path(sys.executable).parent))
    return shlex.quote(installed) if installed else f"{shlex.quote(sys.executable)} -m wsi_nuc"


def _tell(plan: Plan, request: Request, root: Path, tried: bool) -> None:
    from wsi_nuc.cohort.queue.slurm_pbs_lsf import clock

    each = f"{request.cpus} CPUs, {request.memory_gib} GiB and {clock(request.seconds)}"
    typer.echo(f"tasks    {request.tasks}, each with {each}")
    share_s = plan.estimate.get("worker_seconds", 0.0) / request.cpus / request.tasks
    if share_s:
        typer.echo(f"time     about {share_s / 60:,.0f} min per task on CPUs like this machine's")
    if share_s > request.seconds:
        typer.echo("note     that is more than the time of a task: each queues again until its share is done")
    if root.is_relative_to(tempfile.gettempdir()) or root.is_relative_to("/dev/shm"):
        typer.echo(f"note     {root} is likely to be this machine's own; all nodes have to see it")
    if not tried:
        typer.echo("note     nobody has tried this queue yet: the scripts follow its manual")
