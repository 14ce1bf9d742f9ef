"""What is asked of a cluster's queue (`Request`), and how each queue is asked (`Queue`; `QUEUES` lists them).

The number of tasks and their memory come from the plan's estimate, the rest from the user.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.cohort.plan import Plan
from wsi_nuc.errors import UsageError

GIB = 2**30
# Resident memory of `cohort run` with the default model was measured: 0.9 GiB with one worker and 2.3 GiB with
# four. These numbers meet that within 7 %. A plan has a better number for a worker, from a few tiles of three
# slides.
COORDINATOR_BYTES, WORKER_BYTES = 0.45 * GIB, 0.5 * GIB
MEMORY_MARGIN = 1.25
# A task should need half of its time, since the estimate is from a few tiles on another machine.
TIME_MARGIN = 2.0
# A task must have time for its start, for the warning before its end and for two regions, or it may never get on.
STARTING_S, WARNING_S = 60, 120
REGIONS_PER_TASK = 2
# Regions are cut so that they take less than this, unless a single tile takes longer.
LONGEST_REGION_S = 600
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
# Tasks of one array, if the cluster does not say: Slurm's own default allows numbers up to 1000.
SLURM_MOST = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """What the queue is asked for: `tasks` tasks, with the numbers of each."""

    tasks: int
    cpus: int
    gpus: int
    memory_gib: int
    seconds: int
    """Limit of a task's time."""
    at_once: int = 0
    """How many tasks may run at the same time; 0 for any number."""
    partition: str = ""
    account: str = ""
    stage: str = ""
    """Folder on the node's own disk. It may name variables; their values are those of the node."""
    prologue: Sequence[str] = ()
    """Shell lines before the program, such as module load."""
    directives: Sequence[str] = ()
    """Further ones of the user, without the queue's mark."""
    program: str = "wsi-nuc"
    """How the program is started, as words of a shell."""
    restarts: int = 3
    """A task gives up after this many stops in a row without a finished region."""
    allow_failed: bool = False
    retry: bool = False
    """Also try slides again that failed or were refused."""


def tasks_of(plan: Plan, cpus: int, seconds: int, most: int) -> int:
    """Enough tasks that each needs about half of its time, but no more than slides: a share has whole slides."""
    work_s = plan.estimate.get("worker_seconds", 0.0) * TIME_MARGIN / cpus
    useful_s = max(1.0, seconds - STARTING_S - WARNING_S)
    return max(1, min(most, len(plan.runnable), math.ceil(work_s / useful_s)))


def memory_gib(plan: Plan, workers: int) -> int:
    """Whole GiB of a task: what the main process and all workers take, and a quarter more."""
    worker_bytes = plan.estimate.get("worker_bytes", WORKER_BYTES)
    return math.ceil((COORDINATOR_BYTES + workers * worker_bytes) * MEMORY_MARGIN / GIB)


def check_time(plan: Plan, seconds: int) -> None:
    """Refuse a time in which a task cannot finish two regions: it would start again and again and never get on."""
    largest = max((row.tiles / max(1, row.facts.regions) for row in plan.runnable if row.facts), default=0.0)
    tile_s = plan.estimate.get("seconds_a_tile", 0.0)
    region_s = max(tile_s, min(tile_s * largest, LONGEST_REGION_S))
    least = STARTING_S + WARNING_S + REGIONS_PER_TASK * region_s
    if seconds < least:
        raise UsageError(
            f"--time {clock(seconds)}",
            f"a region takes about {region_s:.0f} s, and a task is told to stop {WARNING_S} s before its end",
            f"give at least {math.ceil(least / 60)}m",
        )


def seconds_of(text: str) -> int:
    """2h, 90m, 1d12h, 02:00:00 or 1-12:00:00."""
    units = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    clocked = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text.strip())
    match = clocked or units
    given = [int(part or 0) for part in match.groups()] if match else []
    total = sum(count * unit for count, unit in zip(given, _UNITS.values(), strict=False))
    if not total:
        raise UsageError(
            f"--time {text}", "is not like 2h, 90m or 02:00:00", "write the time of one task like that"
        )
    return total


def clock(seconds: int) -> str:
    """HH:MM:SS, with hours that may exceed 24: all queues read that."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


@dataclass(frozen=True, slots=True)
class Queue:
    """How scripts for one queue are written. Directives are given without the mark in front of them."""

    suffix: str
    """Of the names of its scripts."""
    part: str
    """File beside this module with the queue's own share of the task."""
    mark: str
    """What a directive begins with."""
    partition: str
    """The directive that names the partition, up to its name."""
    account: str
    """The directive that names the account, up to its name."""
    array: Callable[[Request, Path], Iterator[str]]
    """Further directives of a task, made from the request and the folder of logs."""
    single: Callable[[Request, Path], Iterator[str]]
    """The same for the job that follows."""
    submit: Callable[[Request, Path, int], Iterator[str]]
    """Commands that submit both, made from the request, the folder of scripts and the largest size of an array."""
    tried: bool = True
    """Somebody has used these scripts."""

    def array_lines(self, request: Request, logs: Path) -> list[str]:
        """All directives of a task; the user's own come last."""
        return self._marked((*self._placed(request), *self.array(request, logs), *request.directives))

    def single_lines(self, request: Request, logs: Path) -> list[str]:
        """All directives of the job that follows."""
        return self._marked((*self._placed(request), *self.single(request, logs)))

    def _placed(self, request: Request) -> Iterator[str]:
        for option, name in ((self.partition, request.partition), (self.account, request.account)):
            if name:
                yield f"{option}{name}"

    def _marked(self, directives: Iterable[str]) -> list[str]:
        return [f"{self.mark} {directive}" for directive in directives]


def _blocks(tasks: int, most: int) -> Iterator[tuple[int, int]]:
    """The first task (from 0) and the number of tasks of each array, if an array may hold `most`."""
    for first in range(0, tasks, most):
        yield first, min(most, tasks - first)


def _at_once(request: Request) -> str:
    """The limit of tasks that run at once, as all queues write it."""
    return f"%{request.at_once}" if request.at_once else ""


def _slurm_array(request: Request, logs: Path) -> Iterator[str]:
    yield "--job-name=wsi-nuc"
    yield f"--nodes=1 --ntasks=1 --cpus-per-task={request.cpus} --mem={request.memory_gib}G"
    if request.gpus:
        yield f"--gres=gpu:{request.gpus}"
    yield f"--time={clock(request.seconds)}"
    yield "--signal=B:USR1@120"
    yield "--requeue --open-mode=append"
    yield f'--output="{_percent(logs)}/%A_%a.log"'


def _slurm_single(request: Request, logs: Path) -> Iterator[str]:
    yield "--job-name=wsi-nuc-collect"
    yield "--nodes=1 --ntasks=1 --cpus-per-task=1 --mem=2G --time=01:00:00"
    yield f'--output="{_percent(logs)}/collect-%j.log"'


def _percent(path: Path) -> str:
    """Slurm would take % in a file name for one of its own fields."""
    return str(path).replace("%", "%%")


def _slurm_submit(request: Request, folder: Path, most: int) -> Iterator[str]:
    yield "ids="
    for first, count in _blocks(request.tasks, most or SLURM_MOST):
        options = f"--parsable --array=1-{count}{_at_once(request)} --export=ALL,FIRST={first}"
        yield f"id=$(sbatch {options} {_quoted(folder / 'array.slurm')})"
        yield 'ids+=":${id%%;*}"'
    after = (
        "--dependency=afterok$ids --kill-on-invalid-dep=yes"
        if request.allow_failed
        else "--dependency=afterany$ids"
    )
    yield f"last=$(sbatch --parsable {after} {_quoted(folder / 'collect.slurm')})"
    yield 'echo "array${ids//:/ }, then ${last%%;*} collects and reports"'


def _pbs_array(request: Request, logs: Path) -> Iterator[str]:
    yield "-N wsi-nuc"
    gpus = f":ngpus={request.gpus}" if request.gpus else ""
    yield f"-l select=1:ncpus={request.cpus}:mem={request.memory_gib}gb{gpus}"
    yield f"-l walltime={clock(request.seconds)}"
    yield "-r y"
    yield f"-j oe -o {logs}/"


def _pbs_single(request: Request, logs: Path) -> Iterator[str]:
    yield "-N wsi-nuc-collect"
    yield "-l select=1:ncpus=1:mem=2gb -l walltime=01:00:00"
    yield f"-j oe -o {logs}/"


def _pbs_submit(request: Request, folder: Path, most: int) -> Iterator[str]:
    # An array of PBS has at least two members.
    tasks = f"-J 1-{request.tasks}{_at_once(request)}" if request.tasks > 1 else "-v SHARE=1"
    yield f"id=$(qsub {tasks} {_quoted(folder / 'array.pbs')})"
    after = "afterok" if request.allow_failed else "afterany"
    yield f'qsub -W depend={after}:"$id" {_quoted(folder / "collect.pbs")}'


def _lsf_array(request: Request, logs: Path) -> Iterator[str]:
    yield f'-n {request.cpus} -R "span[hosts=1] rusage[mem={request.memory_gib}GB/host]"'
    if request.gpus:
        yield f'-gpu "num={request.gpus}"'
    yield f"-W {max(1, request.seconds // 60)}"
    yield "-wa USR1 -wt 2"
    yield '-r -Q "75"'
    yield f'-o "{logs}/%J_%I.log"'


def _lsf_single(request: Request, logs: Path) -> Iterator[str]:
    yield "-J wsi-nuc-collect"
    yield '-n 1 -R "rusage[mem=2GB/host]" -W 60'
    yield f'-o "{logs}/collect-%J.log"'


def _lsf_submit(request: Request, folder: Path, most: int) -> Iterator[str]:
    # The name must be this cohort's own: the job that follows waits for it by name.
    name = f"wsi-nuc-{folder.parent.name}"
    yield f'bsub -J "{name}[1-{request.tasks}]{_at_once(request)}" < {_quoted(folder / "array.lsf")}'
    after = "done" if request.allow_failed else "ended"
    yield f"bsub -w '{after}({name})' < {_quoted(folder / 'collect.lsf')}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


QUEUES: dict[str, Queue] = {
    "slurm": Queue(
        "slurm", "slurm.sh", "#SBATCH", "--partition=", "--account=", _slurm_array, _slurm_single, _slurm_submit
    ),
    "pbs": Queue("pbs", "pbs.sh", "#PBS", "-q ", "-A ", _pbs_array, _pbs_single, _pbs_submit, tried=False),
    "lsf": Queue("lsf", "lsf.sh", "#BSUB", "-q ", "-P ", _lsf_array, _lsf_single, _lsf_submit, tried=False),
}
