"""The scripts of a cohort for one queue: the array, the job that collects, and the submission of both."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.queue.slurm_pbs_lsf import Queue, Request, clock
from wsi_nuc.errors import UsageError
from wsi_nuc.store import durable
from wsi_nuc.store.place import Place

SHELL = "#!/usr/bin/env bash"


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts of a cohort."""

    array: Path
    """Runs the shares."""
    collect: Path
    """Collects and reports when the array is over."""
    submit: Path
    """Hands both to the queue."""


def write_scripts(folder: CohortFolder, queue: Queue, request: Request, most: int = 0) -> Scripts:
    """`most`: tasks that one array may have, 0 if the cluster does not say.

    More tasks than that make further arrays.
    """
    array, collect = (folder.queue / f"{name}.{queue.suffix}" for name in ("array", "collect"))
    made = Scripts(array, collect, folder.queue / "submit.sh")
    durable.make_dir(folder.place(folder.queue_logs))
    _write(folder.place(made.array), _array(folder, queue, request))
    _write(folder.place(made.collect), _collect(folder, queue, request))
    _write(folder.place(made.submit), [SHELL, "set -euo pipefail", *queue.submit(request, folder.queue, most)])
    return made


def _write(script: Place, lines: list[str]) -> None:
    durable.atomic_write(script, ("\n".join(lines) + "\n").encode())
    with script.reader() as file:
        os.fchmod(file.fileno(), 0o755)


def _array(folder: CohortFolder, queue: Queue, request: Request) -> list[str]:
    plan = hashlib.sha256(folder.plan.read_bytes()).hexdigest()
    here = Path(__file__).parent
    return [
        SHELL,
        f"# Written by `wsi-nuc cohort slurm`: task I computes share I of {request.tasks}, or goes on with it.",
        *queue.array_lines(request, folder.queue_logs),
        "",
        "set -uo pipefail",
        f"COHORT={shlex.quote(str(folder.root))}",
        f"PLAN={plan}",
        f"SHARDS={request.tasks}",
        f"RESTARTS={request.restarts}",
        f"TIME={clock(request.seconds)} SECONDS_PER_TASK={request.seconds}",
        f"PROGRAM=({request.program})",
        f"COMMAND={'retry' if request.retry else 'run'}",
        f"OPTIONS=({' '.join(_options(request))})",
        *request.prologue,
        "",
        (here / queue.part).read_text(),
        (here / "task.sh").read_text().rstrip(),
    ]


def _options(request: Request) -> Iterator[str]:
    if request.gpus > 1:
        yield "--device all"
    elif request.gpus:
        yield "--device cuda --workers 1"
    else:
        yield f"--workers {request.cpus}"
    if request.stage:
        yield f'--set "stage={_on_the_node(request.stage)}"'
    if request.allow_failed:
        yield "--allow-failed"


def _on_the_node(text: str) -> str:
    """The text for double quotes in a shell.

    Variables stay, and must be set there; other shell syntax is refused.
    """
    if not re.fullmatch(r"[\w./:@%+,=${} -]+", text) or "$(" in text:
        raise UsageError(
            f"--stage {text}",
            "is not the path of a folder",
            "give it like '$TMPDIR' or /scratch/$USER",
        )
    return re.sub(r"\$\{?(\w+)\}?", r"${\1:?is not set on this node: choose another --stage}", text)


def _collect(folder: CohortFolder, queue: Queue, request: Request) -> list[str]:
    cohort = shlex.quote(str(folder.root))
    allowed = " --allow-failed" if request.allow_failed else ""
    return [
        SHELL,
        "# Written by `wsi-nuc cohort slurm`: makes the tables and the report, also if slides failed.",
        *queue.single_lines(request, folder.queue_logs),
        "",
        f"PROGRAM=({request.program})",
        *request.prologue,
        f'"${{PROGRAM[@]}}" cohort collect {cohort}{allowed}',
        "code=$?",
        f'"${{PROGRAM[@]}}" cohort report {cohort} || code=$?',
        'exit "$code"',
    ]
