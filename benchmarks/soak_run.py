"""One run of the soak: what happens to it until its command exits with 0 after the last blow, and the outcome."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks.slides import write_slides
from benchmarks.soak_processes import Command, GivenCluster, wait_for_port
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import INTERRUPTED, OK
from wsi_nuc.features.running import run_slides
from wsi_nuc.store.manifest import read
from wsi_nuc.store.verify import verify

SLIDES, EDGE_PX = 3, 1152
BLOWS = 12
# A stopped worker is replaced within a minute, so a run may make no progress for that long. On a crowded machine,
# a second is divided by the number of processes that each CPU has to serve.
QUIET_S = 60.0
LOOK_S = 0.3
# Where a run takes longer, the machine is crowded, and waiting for it would only cost blows.
MOST_PACE_S = 20.0
MOST_ENDS = 3 * BLOWS
KILL, STOP = signal.SIGKILL, signal.SIGSTOP
ENDINGS = (signal.SIGTERM, signal.SIGUSR1)
# How often each happens, relative to the others.
OF_ANY_RUN = {("main", KILL): 10, ("main", signal.SIGTERM): 3, ("main", signal.SIGUSR1): 3}
OF_OWN_WORKERS = {**OF_ANY_RUN, ("worker", KILL): 22, ("worker", STOP): 1}
OF_A_GIVEN_CLUSTER = {**OF_ANY_RUN, ("worker", KILL): 12, ("nanny", KILL): 8, ("scheduler", KILL): 3}
GIVEN_SHARE = 0.2


@dataclass(frozen=True)
class Blow:
    """A signal to one process of the run."""

    who: str
    """"main", "worker", "nanny" or "scheduler"."""
    number: signal.Signals
    after_s: float
    """Seconds since the blow before it, or since the command was started anew."""

    def __str__(self) -> str:
        return f"{self.number.name} {self.who}"


@dataclass(frozen=True)
class Scene:
    """What every run has to do."""

    slides: tuple[Path, ...]
    digests: dict[str, str]
    """Name of a store -> its digest after an undisturbed run."""
    seconds: float
    """How long an undisturbed run takes."""


@dataclass
class Report:
    """What came of one run."""

    seed: int
    given: bool
    """Whether its workers were those of a cluster that ran already."""
    blows: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    """How often the command ended with which code."""
    wrong: list[str] = field(default_factory=list)
    quiet_s: float = 0.0
    """The longest time without progress."""
    stop_s: float = 0.0
    """The longest time from a signal that asks the command to end until it ended."""
    seconds: float = 0.0


def set_scene(place: Path) -> Scene:
    slides = tuple(place / f"{index}.svs" for index in range(SLIDES))
    write_slides(slides, EDGE_PX, density=0.5)
    config = RunConfig(out=place / "peace", model="classical", tissue="none", scheduler="serial")
    results = list(run_slides(config, list(map(str, slides))))
    digests = {Path(result.store).name: str(read(Path(result.store))["digest"]) for result in results}
    started = time.monotonic()
    quiet = Command(slides, place / "measured", None)
    if quiet.process.wait() != OK:
        raise RuntimeError(quiet.output())
    return Scene(slides, digests, time.monotonic() - started)


def blows_of(seed: int, pace_s: float) -> tuple[bool, list[Blow]]:
    """Whether the cluster is given, and the blows of a run that would take `pace_s` without any."""
    dice = random.Random(seed)
    given = dice.random() < GIVEN_SHARE
    kinds = OF_A_GIVEN_CLUSTER if given else OF_OWN_WORKERS
    chosen = dice.choices(list(kinds), list(kinds.values()), k=BLOWS)
    # Some runs have time to work between two blows, others hardly get started.
    longest_s = pace_s * dice.uniform(0.05, 0.5)
    return given, [Blow(who, number, longest_s * dice.random()) for who, number in chosen]


class _Quiet:
    """For how long a run has made no progress."""

    def __init__(self) -> None:
        self._progress, self._looked_at = -1, time.monotonic()
        self.seconds = 0.0

    def ends(self) -> None:
        self.seconds = 0.0

    def look(self, progress: int) -> None:
        now = time.monotonic()
        crowd = max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
        self.seconds = self.seconds + (now - self._looked_at) / crowd if progress == self._progress else 0.0
        self._progress, self._looked_at = progress, now


class _Ordeal:
    """One run, from its first command to the one that exits with 0 after the last blow."""

    def __init__(self, seed: int, scene: Scene, out: Path, loud: bool) -> None:
        given, blows = blows_of(seed, min(scene.seconds, MOST_PACE_S))
        self._scene, self._out, self._loud = scene, out, loud
        self._dice, self._blows = random.Random(-seed), deque(blows)
        self._cluster = GivenCluster() if given else None
        self._report = Report(seed, given)
        # The signals that the running command got, and when it was first asked to end.
        self._struck: set[signal.Signals] = set()
        self._asked_at = math.inf
        self._finished = False

    def report(self) -> Report:
        started = time.monotonic()
        with closing(self._cluster) if self._cluster else nullcontext():
            while not self._is_over():
                self._judge(*self._one_command())
        self._report.seconds = round(time.monotonic() - started, 1)
        return self._report

    def _is_over(self) -> bool:
        if self._report.ends.total() > MOST_ENDS:
            self._wrong(f"did not finish in {MOST_ENDS} attempts")
        return bool(self._report.wrong) or (self._finished and not self._blows)

    def _one_command(self) -> tuple[Command, int]:
        """Start the command and strike it until it ends. Returns the command and its exit code."""
        address = self._cluster.tend() if self._cluster else None
        if address:
            wait_for_port(address)
        self._struck = set()
        command = Command(self._scene.slides, self._out, address)
        self._asked_at = math.inf
        quiet, struck_at = _Quiet(), time.monotonic()
        while command.process.poll() is None:
            due_s = struck_at + self._blows[0].after_s - time.monotonic() if self._blows else math.inf
            time.sleep(min(LOOK_S, max(0.02, due_s)))
            command.descendants()
            now = time.monotonic()
            if self._blows and now >= struck_at + self._blows[0].after_s and self._strike(command):
                struck_at = now
                quiet.ends()
            quiet.look(self._progress())
            self._report.quiet_s = max(self._report.quiet_s, round(quiet.seconds, 1))
            if quiet.seconds > QUIET_S + self._scene.seconds:
                command.abort()
                self._wrong(f"hung for {quiet.seconds:.0f} s: {command.output()[-4000:]}")
            if self._cluster:
                self._cluster.tend()
        self._report.stop_s = max(self._report.stop_s, round(time.monotonic() - self._asked_at, 1))
        return command, command.process.returncode

    def _strike(self, command: Command) -> bool:
        """Deals the next blow. False if no process is there yet that could get it."""
        blow = self._blows[0]
        candidates = self._candidates(command, blow.who)
        if not candidates:
            return False
        with suppress(psutil.NoSuchProcess):
            self._dice.choice(candidates).send_signal(blow.number)
            self._report.blows[str(blow)] += 1
            self._say(f"{blow} after {blow.after_s:.1f} s")
            if blow.who == "main":
                self._struck.add(blow.number)
            if blow.number in ENDINGS:
                self._asked_at = min(self._asked_at, time.monotonic())
            self._blows.popleft()
            return True
        return False

    def _candidates(self, command: Command, who: str) -> Sequence[psutil.Process]:
        if who == "main":
            return [psutil.Process(command.process.pid)]
        if self._cluster is None:
            return command.descendants()
        return {"worker": self._cluster.workers, "nanny": self._cluster.nannies}.get(
            who, self._cluster.scheduler
        )()

    def _progress(self) -> int:
        """Counts regions and slides that are done. A new worker does not count as progress."""
        return len(list(self._out.glob(".wsi-nuc/parts/*/*/*.arrow"))) + 100 * len(self._stores())

    def _stores(self) -> set[str]:
        return {path.name for path in self._out.glob("*") if path.name != ".wsi-nuc"}

    def _is_complete(self) -> bool:
        return self._stores() == self._scene.digests.keys()

    def _judge(self, command: Command, end: int) -> None:
        """Checks what has to hold whenever the command has ended, whatever ended it."""
        name = f"{end}" if end >= 0 else signal.Signals(-end).name
        self._report.ends[name] += 1
        self._say(f"ended with {name}")
        if end not in {OK, INTERRUPTED, *(-number for number in self._struck)}:
            self._wrong(f"ended with {name}: {command.output()[-4000:]}")
        self._report.wrong += [f"left over: {orphan}" for orphan in command.orphans()]
        for store in sorted(self._stores()):
            self._report.wrong += [f"{store}: {problem}" for problem in verify(self._out / store)]
            if not self._report.wrong and read(self._out / store)["digest"] != self._scene.digests.get(store):
                self._wrong(f"{store} differs from that of an undisturbed run")
        answers = [json.loads(line) for line in command.output().splitlines() if line.startswith("{")]
        done = [Path(answer["store"]).name for answer in answers if answer["status"] in ("published", "verified")]
        if len(done) != len(set(done)) or not set(done) <= self._stores():
            self._wrong(f"reported as done: {done}; there are {self._stores()}")
        self._report.wrong += [f"failed: {answer}" for answer in answers if answer["status"] == "failed"]
        if end == OK and not self._is_complete():
            self._wrong(f"exit 0 with {self._stores()}")
        self._finished = end == OK
        if self._finished and self._blows and not self._report.wrong:
            # Quicker than the blows were timed for, since the machine has less to do now.
            self._blows = deque(replace(blow, after_s=blow.after_s / 2) for blow in self._blows)
            shutil.rmtree(self._out)

    def _wrong(self, text: str) -> None:
        self._report.wrong.append(text)
        self._say(text)

    def _say(self, text: str) -> None:
        if self._loud:
            print(text, file=sys.stderr, flush=True)


def one_run(seed: int, scene: Scene, place: Path, loud: bool = False) -> Report:
    report = _Ordeal(seed, scene, place / "out", loud).report()
    shutil.rmtree(place / "out", ignore_errors=True)
    return report
