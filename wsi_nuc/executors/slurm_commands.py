"""Calls Slurm's own commands: its version, what it refuses, what is in its queue."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_nuc.errors import UsageError

LIMIT_S = 60
# For a question that is asked again and again.
ANSWER_S = 8
# The scripts use `scontrol requeue Incomplete`.
OLDEST = (20, 11)


def check_slurm(option: str) -> None:
    """Raise UsageError unless the commands are here, reach a controller and are not too old."""
    if shutil.which("sbatch") is None:
        raise UsageError(option, "there is no sbatch here", "run it where Slurm's commands are installed")
    done = _call("sbatch", "--version")
    version = re.search(r"(\d+)\.(\d+)", done.stdout)
    if done.returncode or not version:
        said = _said(done)
        raise UsageError(option, f"Slurm does not answer ({said})", "run it on a node that can submit jobs")
    if (int(version[1]), int(version[2])) < OLDEST:
        cause = f"this is {done.stdout.strip()}, and it has to be at least {'.'.join(map(str, OLDEST))}"
        raise UsageError(
            option, cause, "ask for a newer one, or write a script of your own around `cohort run --shard`"
        )


def refuse_what_slurm_refuses(option: str, script: str, remedy: str) -> None:
    """Try a submission without making it: Slurm names a wrong partition or account, or too much memory, now."""
    with _file(script) as path:
        done = _call("sbatch", "--test-only", path)
    if done.returncode:
        raise UsageError(option, f"Slurm refuses such a job ({_said(done)})", remedy)


def largest_array(option: str) -> int:
    """How many tasks an array may have, if they are numbered from 1."""
    done = _call("scontrol", "show", "config")
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    if match is None:
        raise UsageError(option, f"Slurm does not answer ({_said(done)})", "try again when its controller is up")
    if int(match[1]) < 2:
        raise UsageError(option, "this cluster allows no job arrays (MaxArraySize)", "ask its admin to allow them")
    return int(match[1]) - 1


def submit_text(option: str, script: str, remedy: str) -> str:
    """Submit one job; returns its id."""
    with _file(script) as path:
        done = _call("sbatch", "--parsable", path)
    if done.returncode:
        raise UsageError(option, f"Slurm refuses such a job ({_said(done)})", remedy)
    return done.stdout.strip().partition(";")[0]


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs. It is not an error if one is over already."""
    if wanted := sorted(ids):
        _call("scancel", *wanted)


def submit(option: str, script: Path) -> str:
    """Run a script that submits; returns its output."""
    done = _call("bash", str(script))
    if done.returncode:
        raise UsageError(option, f"Slurm refuses it ({_said(done)})", f"mend what it names, then: bash {script}")
    return done.stdout.strip()


def queued(ids: Iterable[str]) -> set[str] | None:
    """The jobs among `ids` that wait or run; None if Slurm does not answer."""
    wanted = set(ids)
    done = _call("squeue", "--noheader", "--format=%i", f"--jobs={','.join(sorted(wanted))}", limit_s=ANSWER_S)
    # If Slurm has forgotten the only job the whole answer is an error. If there are several, it lists the others.
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    return wanted & set(done.stdout.split())


@contextmanager
def _file(script: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        yield file.name


def _call(*command: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split()) or f"{done.args[0]} ends with {done.returncode}"
