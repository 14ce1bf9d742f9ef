"""The ways to end a task of a Slurm array, and the array that they are tried on."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import psutil

from tests.slurm.cluster import Slurm
from wsi_nuc.cohort.folder import CohortFolder

JOB_SCRIPT = "array.slurm"
Fire = Callable[["Array", int], None]


@dataclass(frozen=True)
class Way:
    """A way to end a task."""

    fire: Fire | None
    """Does it to one task; None where Slurm does it by itself, or nothing is done."""
    options: Sequence[str] = ()
    """Of the task's sbatch, with {s} for the seconds before its end."""
    program: str = "--scheduler serial"
    """Options of the program that the task runs."""


class Array:
    """The tasks of one way, in a copy of the cohort."""

    def __init__(self, slurm: Slurm, planned: Path, place: Path, way: Way, tasks: int) -> None:
        self.slurm, self.cohort, self.tasks = slurm, CohortFolder(copytree(planned, place)), tasks
        script = self.cohort.queue / JOB_SCRIPT
        text = script.read_text().replace(str(planned), str(place))
        script.write_text(text.replace("--workers 1", way.program))
        self.ids: dict[int, str] = {}
        self.started: dict[int, float] = {}

    def submit(self, tasks: Sequence[int], options: Sequence[str] = ()) -> None:
        numbers = ",".join(map(str, tasks))
        script = self.cohort.queue / JOB_SCRIPT
        job_id = self.slurm.run("sbatch", "--parsable", f"--array={numbers}", *options, script).strip()
        self.ids |= {task: f"{job_id}_{task}" for task in tasks}

    def states(self) -> dict[int, tuple[str, int]]:
        """State and restarts of every task, as it was submitted last."""
        states: dict[str, tuple[str, int]] = {}
        for line in self.slurm.run("scontrol", "-o", "show", "job").splitlines():
            fields = dict(re.findall(r"(\w+)=(\S*)", line))
            for name in _names(fields):
                states[name] = (fields["JobState"], int(fields.get("Restarts", 0)))
        return {task: states[name] for task, name in self.ids.items() if name in states}

    def position(self, task: int, state: str) -> str:
        if state != "RUNNING":
            return state.lower()
        if self.published(task):
            return "published"
        journal = self.cohort.queue_logs / f"{self.ids[task]}.journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        regions = len({line for line in lines if line != "start"})
        return f"after region {regions}" if regions else "before a region"

    def published(self, task: int) -> bool:
        """Share I is slide I, since all slides have equally many tiles."""
        return self.cohort.manifest(f"s{task:02}.svs").exists()

    def processes(self, task: int) -> list[psutil.Process]:
        return self.slurm.processes_of(self.ids[task])


def _names(fields: dict[str, str]) -> Iterator[str]:
    """The names of the tasks in a record, such as 12_3. Slurm writes 12_[3-5,7] for several tasks that wait."""
    array, numbers = fields.get("ArrayJobId"), fields.get("ArrayTaskId", "")
    if array is None:
        return
    for part in numbers.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield f"{array}_{number}"


def _scancel(array: Array, task: int) -> None:
    array.slurm.run("scancel", array.ids[task])


def _scancel_all(array: Array, task: int) -> None:
    array.slurm.run("scancel", array.ids[task].partition("_")[0])


def _requeue(array: Array, task: int) -> None:
    # Slurm would start a completed task again.
    if array.states()[task][0] == "RUNNING":
        array.slurm.run("scontrol", "requeue", array.ids[task])


def _send(word: str, number: signal.Signals = signal.SIGKILL) -> Fire:
    """Sends a signal to the processes of the task that have `word` in their command."""

    def fire(array: Array, task: int) -> None:
        for process in array.processes(task):
            with suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    process.send_signal(number)

    return fire


def _warn_and_cancel(array: Array, task: int) -> None:
    """The cancel comes while the task answers the warning."""
    _send("slurm_script", signal.SIGUSR1)(array, task)
    time.sleep(random.uniform(0, 1.5))
    _scancel(array, task)


def _node_of(array: Array, task: int) -> str:
    shown = array.slurm.run("scontrol", "-o", "show", "job", array.ids[task])
    node = re.search(r" NodeList=(n\d)", shown)
    return node[1] if node else ""


def _preempt(array: Array, task: int) -> None:
    """An urgent job takes the whole node for a second."""
    if node := _node_of(array, task):
        array.slurm.run(
            "sbatch", "-p", "urgent", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"
        )


def _node_down(array: Array, task: int) -> None:
    if node := _node_of(array, task):
        array.slurm.kill_node(node)
        # Time for the controller to notice. A node that is back sooner reports its tasks as ended.
        time.sleep(12)
        array.slurm.start_node(node)


WAYS: dict[str, Way] = {
    "nothing": Way(None),
    "scancel of a task": Way(_scancel),
    "warning, then scancel": Way(_warn_and_cancel),
    "warning (USR1)": Way(_send("slurm_script", signal.SIGUSR1)),
    "scontrol requeue": Way(_requeue),
    "preemption": Way(_preempt),
    "time limit": Way(None, ("--time=1", "--signal=B:USR1@{s}")),
    "node down": Way(_node_down),
    "kill -9 of the program": Way(_send("cohort run")),
    "kill -9 of the script": Way(_send("slurm_script")),
    "kill -9 of a worker": Way(_send("wsi_nuc.executors.original"), program="--workers 2"),
    "scancel of the array": Way(_scancel_all),
}
# Ways that end the task for good. All others leave it, or put it back.
FINAL = {name for name in WAYS if "scancel" in name}
# Ways that hit other tasks as well, so they are used on fewer tasks.
WIDE = {"preemption", "node down", "scancel of the array"}
