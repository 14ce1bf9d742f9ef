"""The queues that scripts can be written for: what each calls the same things. `QUEUES` is their registry."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.cohort.queue.request import Request, clock

# Of an array, where the cluster says nothing else: Slurm's own default, which allows numbers up to 1000.
SLURM_MOST = 1000


@dataclass(frozen=True, slots=True)
class Queue:
    """`suffix` of its scripts; `part`: file beside this module with the queue's own share of the task.

    `array` and `single` give the directives of a task and of the job that follows; `submit` the commands.
    """

    suffix: str
    part: str
    array: Callable[[Request, Path], Iterator[str]]
    single: Callable[[Request, Path], Iterator[str]]
    submit: Callable[[Request, Path, int], Iterator[str]]
    tried: bool = True


def _blocks(tasks: int, most: int) -> Iterator[tuple[int, int]]:
    """First task (from 0) and number of tasks of each array, where one may hold `most`."""
    for first in range(0, tasks, most):
        yield first, min(most, tasks - first)


def _slurm_common(request: Request) -> Iterator[str]:
    for name, value in (("partition", request.partition), ("account", request.account)):
        if value:
            yield f"#SBATCH --{name}={value}"


def _slurm_array(request: Request, logs: Path) -> Iterator[str]:
    yield "#SBATCH --job-name=wsi-nuc"
    yield from _slurm_common(request)
    yield f"#SBATCH --nodes=1 --ntasks=1 --cpus-per-task={request.cpus} --mem={request.memory_gib}G"
    if request.gpus:
        yield f"#SBATCH --gres=gpu:{request.gpus}"
    yield f"#SBATCH --time={clock(request.seconds)}"
    yield "#SBATCH --signal=B:USR1@120"
    yield "#SBATCH --requeue --open-mode=append"
    yield f'#SBATCH --output="{_percent(logs)}/%A_%a.log"'
    yield from (f"#SBATCH {one}" for one in request.directives)


def _slurm_single(request: Request, logs: Path) -> Iterator[str]:
    yield "#SBATCH --job-name=wsi-nuc-collect"
    yield from _slurm_common(request)
    yield "#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=1 --mem=2G --time=01:00:00"
    yield f'#SBATCH --output="{_percent(logs)}/collect-%j.log"'


def _percent(path: Path) -> str:
    """Slurm takes % in a file name for a field of its own."""
    return str(path).replace("%", "%%")


def _slurm_submit(request: Request, folder: Path, most: int) -> Iterator[str]:
    yield "ids="
    at_once = f"%{request.at_once}" if request.at_once else ""
    for first, count in _blocks(request.tasks, most or SLURM_MOST):
        options = f"--parsable --array=1-{count}{at_once} --export=ALL,FIRST={first}"
        yield f"id=$(sbatch {options} {_quoted(folder / 'array.slurm')})"
        yield 'ids+=":${id%%;*}"'
    after = (
        "--dependency=afterok$ids --kill-on-invalid-dep=yes"
        if request.allow_failed
        else "--dependency=afterany$ids"
    )
    yield f"last=$(sbatch --parsable {after} {_quoted(folder / 'collect.slurm')})"
    yield 'echo "array${ids//:/ }, then ${last%%;*} collects and reports"'


def _pbs_common(request: Request) -> Iterator[str]:
    if request.partition:
        yield f"#PBS -q {request.partition}"
    if request.account:
        yield f"#PBS -A {request.account}"


def _pbs_array(request: Request, logs: Path) -> Iterator[str]:
    yield "#PBS -N wsi-nuc"
    yield from _pbs_common(request)
    gpus = f":ngpus={request.gpus}" if request.gpus else ""
    yield f"#PBS -l select=1:ncpus={request.cpus}:mem={request.memory_gib}gb{gpus}"
    yield f"#PBS -l walltime={clock(request.seconds)}"
    yield "#PBS -r y"
    yield f"#PBS -j oe -o {logs}/"
    yield from (f"#PBS {one}" for one in request.directives)


def _pbs_single(request: Request, logs: Path) -> Iterator[str]:
    yield "#PBS -N wsi-nuc-collect"
    yield from _pbs_common(request)
    yield "#PBS -l select=1:ncpus=1:mem=2gb -l walltime=01:00:00"
    yield f"#PBS -j oe -o {logs}/"


def _pbs_submit(request: Request, folder: Path, most: int) -> Iterator[str]:
    at_once = f"%{request.at_once}" if request.at_once else ""
    # An array of PBS has at least two members.
    tasks = f"-J 1-{request.tasks}{at_once}" if request.tasks > 1 else "-v SHARE=1"
    yield f"id=$(qsub {tasks} {_quoted(folder / 'array.pbs')})"
    after = "afterok" if request.allow_failed else "afterany"
    yield f'qsub -W depend={after}:"$id" {_quoted(folder / "collect.pbs")}'


def _lsf_common(request: Request) -> Iterator[str]:
    if request.partition:
        yield f"#BSUB -q {request.partition}"
    if request.account:
        yield f"#BSUB -P {request.account}"


def _lsf_array(request: Request, logs: Path) -> Iterator[str]:
    yield from _lsf_common(request)
    yield f'#BSUB -n {request.cpus} -R "span[hosts=1] rusage[mem={request.memory_gib}GB/host]"'
    if request.gpus:
        yield f'#BSUB -gpu "num={request.gpus}"'
    yield f"#BSUB -W {max(1, request.seconds // 60)}"
    yield "#BSUB -wa USR1 -wt 2"
    yield '#BSUB -r -Q "75"'
    yield f'#BSUB -o "{logs}/%J_%I.log"'
    yield from (f"#BSUB {one}" for one in request.directives)


def _lsf_single(request: Request, logs: Path) -> Iterator[str]:
    yield "#BSUB -J wsi-nuc-collect"
    yield from _lsf_common(request)
    yield '#BSUB -n 1 -R "rusage[mem=2GB/host]" -W 60'
    yield f'#BSUB -o "{logs}/collect-%J.log"'


def _lsf_submit(request: Request, folder: Path, most: int) -> Iterator[str]:
    at_once = f"%{request.at_once}" if request.at_once else ""
    # The name must be this cohort's own: the job that follows waits for it by name.
    name = f"wsi-nuc-{folder.parent.name}"
    yield f'bsub -J "{name}[1-{request.tasks}]{at_once}" < {_quoted(folder / "array.lsf")}'
    after = "done" if request.allow_failed else "ended"
    yield f"bsub -w '{after}({name})' < {_quoted(folder / 'collect.lsf')}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


QUEUES: dict[str, Queue] = {
    "slurm": Queue("slurm", "slurm.sh", _slurm_array, _slurm_single, _slurm_submit),
    "pbs": Queue("pbs", "pbs.sh", _pbs_array, _pbs_single, _pbs_submit, tried=False),
    "lsf": Queue("lsf", "lsf.sh", _lsf_array, _lsf_single, _lsf_submit, tried=False),
}
