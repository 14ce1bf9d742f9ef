"""On a real Slurm: a cohort of 15 slides, three of them broken, from plan to report while its tasks are struck."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq

from benchmarks.slides import write_slides
from tests.e2e.command import digest, wsi_nuc
from tests.slurm.cluster import Slurm, until
from tests.slurm.test_slurm import has_been_told, states

GOOD = [f"s{number:02}.svs" for number in range(1, 13)]
BAD = {"cut.svs": "is truncated", "text.svs": "no reader opens it", "copy.svs": "is the same content as line"}
# Four regions for each slide, two slides for each task.
SETTINGS = ("--model", "classical", "--set", "region_size=256", "--set", "tissue=none", "--scheduler", "serial")
SIZE_PX, TASKS = 1536, 6
LIMIT_S = 600
OVER = ("COMPLETED", "CANCELLED", "FAILED")


class Standing(NamedTuple):
    """How a task stands."""

    state: str
    """As Slurm calls it."""
    restarts: int
    """As Slurm counts them."""
    code: str
    """The exit code of the script, a colon, and the signal that ended it."""
    starts: int
    """How often the script has started, by its own journal."""


@dataclass
class Tasks:
    """The tasks of one array. Each look makes sure that a task which is over has not changed since."""

    slurm: Slurm
    cohort: Path
    array: str
    """Slurm's number of it."""
    over: dict[int, Standing] = field(default_factory=dict)
    """The tasks that are over, as they were when that was first seen."""

    def look(self) -> dict[int, Standing]:
        seen = {}
        for name, job in states(self.slurm).items():
            if match := re.fullmatch(rf"{self.array}_(\d+)", name):
                task = int(match[1])
                starts = self.journal(task).count("start")
                seen[task] = Standing(job["JobState"], int(job["Restarts"]), job["ExitCode"], starts)
        for task, standing in seen.items():
            if standing.state in OVER:
                self.over.setdefault(task, standing)
        assert {task: seen[task] for task in self.over} == self.over
        return seen

    def ended(self) -> bool:
        """Whether all of them are over, and the job that follows them, too."""
        self.look()
        return not self.slurm.jobs()

    def name(self, task: int) -> str:
        return f"{self.array}_{task}"

    def journal(self, task: int) -> list[str]:
        """A line for each start and for each finished region."""
        path = self.cohort / "queue" / "logs" / f"{self.name(task)}.journal"
        return path.read_text().splitlines() if path.exists() else []

    def node(self, task: int) -> str:
        return states(self.slurm)[self.name(task)]["NodeList"]

    def processes(self, task: int, word: str) -> list[psutil.Process]:
        """The processes of a task that have this word in their command."""
        processes = []
        for process in self.slurm.processes_of(self.name(task)):
            with suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    processes.append(process)
        return processes

    def halted(self, count: int, but: Sequence[int] = ()) -> dict[int, list[psutil.Process]]:
        """The programs of so many tasks, none of them in `but`, each stopped after its first region."""
        programs: dict[int, list[psutil.Process]] = {}
        end = time.monotonic() + LIMIT_S
        while len(programs) < count:
            assert time.monotonic() < end, self.slurm.logs()
            for task, standing in self.look().items():
                at_work = standing.state == "RUNNING" and set(self.journal(task)) - {"start"}
                if at_work and task not in (*but, *programs) and len(programs) < count:
                    processes = self.processes(task, "cohort run")
                    for process in processes:
                        process.suspend()
                    if processes:
                        programs[task] = processes
            time.sleep(0.1)
        return programs


@dataclass
class Strike:
    """Something that happened to a task."""

    what: str
    task: int
    regions: int
    """How many regions the task had finished by then."""
    before: Standing


class Fire:
    """The ways in which a task is struck while its program is halted."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks, self.slurm, self.strikes = tasks, tasks.slurm, list[Strike]()

    def _write_down(self, what: str, task: int) -> None:
        regions = len(set(self.tasks.journal(task)) - {"start"})
        self.strikes.append(Strike(what, task, regions, self.tasks.look()[task]))

    def cancel(self, task: int, program: list[psutil.Process]) -> None:
        self._write_down("scancel", task)
        self.slurm.run("scancel", self.tasks.name(task))
        resume(program)

    def warn(self, task: int, program: list[psutil.Process]) -> None:
        self._write_down("USR1", task)
        self.slurm.run("scancel", "--batch", "--signal=USR1", self.tasks.name(task))
        until(lambda: all(map(has_been_told, program)), LIMIT_S, self.slurm.logs)
        resume(program)

    def kill_program(self, task: int, program: list[psutil.Process]) -> None:
        self._write_down("kill -9 of the program", task)
        for process in program:
            process.kill()

    def kill_script(self, task: int, program: list[psutil.Process]) -> None:
        self._write_down("kill -9 of the script", task)
        (script,) = self.tasks.processes(task, "slurm_script")
        script.kill()
        resume(program)

    def preempt(self, task: int, program: list[psutil.Process]) -> None:
        """By an urgent job that wants its whole node."""
        self._write_down("preemption", task)
        place = ("-p", "urgent", "-w", self.tasks.node(task), "--exclusive", "-o", "/dev/null")
        self.slurm.run("sbatch", *place, "--wrap", "sleep 1")
        until(lambda: all(map(has_been_told, program)), LIMIT_S, self.slurm.logs)
        resume(program)

    def table(self) -> str:
        """A row for each task."""
        after = self.tasks.look()
        struck = {strike.task: strike for strike in self.strikes}
        lines = ["signal | task | when | before: state, restarts, code, starts | after: the same"]
        for task, end in sorted(after.items()):
            now = ", ".join(map(str, end))
            if strike := struck.get(task):
                before = ", ".join(map(str, strike.before))
                lines.append(f"{strike.what} | {task} | after region {strike.regions} | {before} | {now}")
            else:
                lines.append(f"none | {task} | - | - | {now}")
        return "\n".join(lines)


def resume(program: list[psutil.Process]) -> None:
    for process in program:
        # The cluster may have been quicker.
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def list_of_slides(folder: Path) -> Path:
    """Draws the slides; the list names all 15, the broken ones among the others."""
    folder.mkdir()
    write_slides([folder / name for name in GOOD], SIZE_PX)
    whole = (folder / GOOD[3]).read_bytes()
    (folder / "cut.svs").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "text.svs").write_text("The scanner had no card in it.\n" * 50)
    (folder / "copy.svs").write_bytes((folder / GOOD[0]).read_bytes())
    names = [*GOOD[:5], "cut.svs", *GOOD[5:8], "text.svs", "copy.svs", *GOOD[8:]]
    made = folder / "slides.csv"
    made.write_text("\n".join(["slide", *names]) + "\n")
    return made


def user(*command: object, code: int = 0) -> str:
    """Runs a command, which has to end with this code, and returns what it prints."""
    done = wsi_nuc(*command, timeout=LIMIT_S)
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def submitted(cohort: Path) -> tuple[str, str]:
    """Slurm's numbers of the array and of the job that collects and reports."""
    size = ("--tasks", TASKS, "--cpus-per-task", 1, "--memory", 1)
    output = user("cohort", "slurm", cohort, "--submit", "--allow-failed", *size)
    match = re.search(r"array (\d+), then (\d+) collects", output)
    assert match, output
    return match[1], match[2]


def published(cohort: Path) -> dict[str, tuple[int, str]]:
    """When each result appeared, and its digest."""
    stores = sorted((cohort / "results").glob("*.zarr"))
    return {store.name: ((store / "manifest.json").stat().st_mtime_ns, digest(store)) for store in stores}


def test_a_cohort_from_plan_to_report_while_its_tasks_are_struck(with_slurm: Slurm, tmp_path: Path) -> None:
    slurm, cohort, plain = with_slurm, tmp_path / "cohort", tmp_path / "plain"
    listed = list_of_slides(tmp_path / "slides")
    user("cohort", "plan", listed, "--out", cohort, *SETTINGS, "--allow-failed")
    array, collects = submitted(cohort)
    tasks = Tasks(slurm, cohort, array)
    fire = Fire(tasks)

    struck = tasks.halted(4)
    ways = (fire.cancel, fire.warn, fire.kill_program, fire.kill_script)
    for way, (task, program) in zip(ways, struck.items(), strict=True):
        way(task, program)
    ((last, program),) = tasks.halted(1, list(struck)).items()
    until(lambda: "COMPLETED" in {standing.state for standing in tasks.look().values()}, LIMIT_S, slurm.logs)
    fire.preempt(last, program)
    until(tasks.ended, LIMIT_S, slurm.logs)
    print(f"\n{fire.table()}")

    cancelled, warned, program_killed, script_killed = struck
    after = tasks.look()
    # Whether its script had time to end by itself shows in its code, and in nothing else.
    assert after[cancelled]._replace(code="") == ("CANCELLED", 0, "", 1)
    assert after[program_killed] == ("FAILED", 0, "137:0", 1)
    assert after[script_killed] == ("FAILED", 0, "0:9", 1)
    assert {
        (after[task].state, after[task].code) for task in after.keys() - {cancelled, program_killed, script_killed}
    } == {("COMPLETED", "0:0")}
    assert after[warned].restarts >= 1
    assert after[last].restarts >= 1
    assert len(after) == TASKS
    # A script that the urgent job ended before its first line has started once less than Slurm says.
    assert all(1 <= standing.starts <= standing.restarts + 1 for standing in after.values())
    # Three tasks have not ended well, so nothing is reported as if they had.
    assert states(slurm)[collects]["JobState"] == "CANCELLED"
    assert not (cohort / "report.html").exists()
    user("cohort", "status", cohort, "--wait", "--timeout", 0.02, "--allow-failed", code=75)

    before = published(cohort)
    assert 0 < len(before) < len(GOOD)
    again, collects = submitted(cohort)
    second = Tasks(slurm, cohort, again)
    user("cohort", "status", cohort, "--wait", code=3)
    until(second.ended, LIMIT_S, slurm.logs)
    assert second.look() == dict.fromkeys(range(1, TASKS + 1), ("COMPLETED", 0, "0:0", 1))
    assert tasks.look() == after
    assert (states(slurm)[collects]["JobState"], states(slurm)[collects]["ExitCode"]) == ("COMPLETED", "0:0")

    results = published(cohort)
    assert {name: results[name] for name in before} == before
    user("run", *[listed.parent / name for name in GOOD], "--out", plain, *SETTINGS, "--quiet")
    assert {name: end for name, (_, end) in results.items()} == {
        f"{name}.zarr": digest(plain / f"{name}.zarr") for name in GOOD
    }
    user("verify", *[cohort / "results" / name for name in results])
    user("cohort", "status", cohort, "--verify", "--allow-failed")
    rows = pq.read_table(cohort / "cohort.parquet").to_pylist()
    slides = {Path(row["slide"]).name: row for row in rows if row["level"] == "slide"}
    assert {name for name, row in slides.items() if row["state"] == "done"} == set(GOOD)
    page = (cohort / "report.html").read_text()
    for name, reason in BAD.items():
        assert slides[name]["state"] == "refused"
        assert reason in slides[name]["error"]
        assert name in page
