"""A private Slurm under fire: every way to end a task, at random moments, and what becomes of the task.

For each way, an array of tasks runs on slides with four regions each, and something happens to each task at a
random moment of its life. A line of the table says where the task was then, and its state and restarts before and
after. Tasks that are not done afterwards are submitted again by their numbers alone. Results are compared with
those of an undisturbed run.

python -m benchmarks.slurm_signals [TASKS [WAY ...]]
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.slides import write_slides
from benchmarks.slurm_ways import FINAL, WAYS, WIDE, Array, Way
from benchmarks.table import Row, print_rows
from tests.slurm.cluster import Slurm, missing, two_nodes

TASKS, SIZE_PX, SEED = 20, 1536, 12
SMALL_TASKS, SMALL_WAYS = 2, ("warning, then scancel",)
# No way needs longer, so a task that does is stuck and not just slow.
LIMIT_S = 1800.0
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


@dataclass
class Moment:
    """What happened to one task."""

    task: int
    position: str
    """Where in its life the task was, in words."""
    state: str
    restarts: int
    """State and restarts before it happened."""
    refused: bool = False
    """Whether Slurm refused to do it."""
    state_after: str = ""
    restarts_after: int = 0


@dataclass
class Fired:
    """What came of one way, after it was done to all tasks."""

    way: str
    moments: list[Moment] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)
    """Tasks that restarted although nothing was done to them."""
    again: int = 0
    """How many tasks were submitted again."""
    wrong: list[str] = field(default_factory=list)
    late: bool = False
    """Whether a task took longer than LIMIT_S."""


def fire(slurm: Slurm, planned: Path, place: Path, name: str, tasks: int, life_s: float) -> tuple[Fired, float]:
    """Also returns the median life of a task in seconds, from its start to its end."""
    way, dice = WAYS[name], random.Random(f"{SEED} {name}")
    array, fired = Array(slurm, planned, place, way, tasks), Fired(name)
    numbers = list(range(1, tasks + 1))
    if "{s}" in "".join(way.options):
        for task in numbers:
            array.submit([task], [option.format(s=dice.randint(5, 50)) for option in way.options])
    elif name == "scancel of the array":
        for first in range(0, tasks, 2):
            array.submit(numbers[first : first + 2], way.options)
    else:
        array.submit(numbers, way.options)
    hit = numbers[:: 1 if name not in WIDE else 2 if name in FINAL else 4] if way.fire else []
    due = {task: dice.uniform(0, life_s) for task in hit}
    lives: dict[int, float] = {}
    end, before = time.monotonic() + LIMIT_S, dict[int, tuple[str, int]]()
    while True:
        states = array.states()
        now = time.monotonic()
        _watch(array, states, before, lives, fired)
        for task in [task for task in due if task in array.started and now - array.started[task] >= due[task]]:
            del due[task]
            state, restarts = array.states()[task]
            fired.moments.append(Moment(task, array.position(task, state), state, restarts))
            try:
                if way.fire:
                    way.fire(array, task)
            except (AssertionError, subprocess.TimeoutExpired):
                # Slurm refuses this for a task that is over or just being put back.
                fired.moments[-1].refused = True
        if all(state in OVER for state, _ in states.values()) and not slurm.jobs():
            break
        if now > end:
            fired.late = True
            slurm.run("scancel", "-u", "root")
            break
        time.sleep(0.5)
    _settle(array, fired, way)
    return fired, sorted(lives.values())[len(lives) // 2] if lives else life_s


def _watch(
    array: Array,
    states: dict[int, tuple[str, int]],
    before: dict[int, tuple[str, int]],
    lives: dict[int, float],
    fired: Fired,
) -> None:
    """Notes starts and ends, and tasks that start again after they were completed or cancelled."""
    now = time.monotonic()
    for task, (state, restarts) in states.items():
        if state == "RUNNING":
            array.started.setdefault(task, now)
        old, old_restarts = before.get(task, (state, restarts))
        if old in ("COMPLETED", "CANCELLED") and (state, restarts) != (old, old_restarts):
            fired.wrong.append(f"task {task} was {old} and is {state} with {restarts} restarts")
        if state in OVER and task in array.started:
            lives.setdefault(task, now - array.started[task])
    before.update(states)


def _settle(array: Array, fired: Fired, way: Way) -> None:
    """Notes the states afterwards, and submits the tasks that are not done again by their numbers."""
    after = array.states()
    if way.options:
        # Slurm itself chose the moment.
        restarted = [task for task, (_, restarts) in after.items() if restarts]
        fired.moments = [Moment(task, "when Slurm warned", "RUNNING", 0) for task in restarted]
    for moment in fired.moments:
        moment.state_after, moment.restarts_after = after[moment.task]
        cancelled = fired.way in FINAL and moment.state in ("RUNNING", "PENDING") and not moment.refused
        # It may have ended by itself just before.
        ended = moment.state_after == "COMPLETED" and moment.restarts_after == moment.restarts
        if cancelled and moment.state_after != "CANCELLED" and not ended:
            fired.wrong.append(f"task {moment.task} was cancelled and is {moment.state_after}")
        if moment.state == "COMPLETED" and moment.restarts_after != moment.restarts:
            fired.wrong.append(f"task {moment.task} was completed and started again")
    hit = {moment.task for moment in fired.moments}
    if fired.way not in WIDE:
        fired.disturbed = [
            f"task {task}" for task, (_, restarts) in after.items() if restarts and task not in hit and way.fire
        ]
    left = [task for task in range(1, array.tasks + 1) if not array.published(task)]
    fired.again = len(left)
    end = time.monotonic() + LIMIT_S
    if left:
        array.submit(left)
    while array.slurm.jobs():
        if time.monotonic() > end:
            fired.late = True
            return
        time.sleep(0.5)


def digests(cohort: Path) -> dict[str, str]:
    stores = sorted((cohort / "results").glob("*.zarr"))
    return {store.name: json.loads((store / "manifest.json").read_text())["digest"] for store in stores}


def prepare(place: Path, tasks: int, size_px: int) -> Path:
    slides = [place / "slides" / f"s{i:02}.svs" for i in range(1, tasks + 1)]
    slides[0].parent.mkdir(parents=True)
    write_slides(slides, size_px)
    cohort = place / "planned"
    program = [sys.executable, "-m", "wsi_nuc", "cohort"]
    settings = ["--model", "classical", "--set", "region_size=256", "--set", "tissue=none", "--workers", "2"]
    commands = (
        ["plan", str(slides[0].parent), "--out", str(cohort), "--quiet", *settings],
        [
            "slurm",
            str(cohort),
            "--tasks",
            str(tasks),
            "--cpus-per-task",
            "1",
            "--memory",
            "1",
            "--restarts",
            "100",
        ],
    )
    for command in commands:
        subprocess.run([*program, *command], check=True, stdout=subprocess.DEVNULL)
    return cohort


def table(fired: Fired) -> str:
    """One line per kind of moment: way, position, state and restarts before, the same after, and how often."""
    seen = Counter(
        f"{fired.way}; {moment.position}; {moment.state} {moment.restarts}; "
        f"{moment.state_after} {moment.restarts_after}{' (refused)' if moment.refused else ''}"
        for moment in fired.moments
    )
    return "\n".join(f"{line}; {count}" for line, count in sorted(seen.items()))


def measure(small: bool = False) -> list[Row]:
    """Needs Slurm, and says so where it is not."""
    return fired_rows(SMALL_TASKS, SMALL_WAYS, 512) if small else fired_rows(TASKS, tuple(WAYS))


def fired_rows(tasks: int, ways: Sequence[str], size_px: int = SIZE_PX) -> list[Row]:
    if reason := missing():
        return [Row(f"no Slurm can be started here: {reason}", 0)]
    fired: list[Fired] = []
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as place, two_nodes() as slurm:
        planned, life_s, peace = prepare(Path(place), tasks, size_px), 30.0, dict[str, str]()
        for number, name in enumerate(dict.fromkeys(["nothing", *ways])):
            started = time.monotonic()
            outcome, lived_s = fire(slurm, planned, Path(place) / str(number), name, tasks, life_s)
            results = digests(Path(place) / str(number))
            if name == "nothing":
                peace, life_s = results, lived_s
            if results != peace or len(results) != tasks:
                outcome.wrong.append(
                    f"{len(set(results.items()) & set(peace.items()))} of {tasks} results are as in peace"
                )
            fired.append(outcome)
            seconds = time.monotonic() - started
            print(
                f"{name}: {seconds:.0f} s, wrong: {outcome.wrong + outcome.disturbed}", file=sys.stderr, flush=True
            )
            print(table(outcome), flush=True)
    return list(_rows(fired))


def _rows(fired: Sequence[Fired]) -> Iterator[Row]:
    for way in fired:
        what = f"{way.way}: {len(way.moments)} times, {way.again} tasks submitted again; things that are wrong"
        wrong = len(way.wrong) + len(way.disturbed) + way.late
        yield Row(what, wrong, "", "0", not wrong, always=True)


if __name__ == "__main__":
    count, *chosen = sys.argv[1:] or [str(TASKS)]
    print_rows(fired_rows(int(count), chosen or tuple(WAYS)))
