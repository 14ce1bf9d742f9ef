"""The scripts of `cohort slurm`, run by bash beside a stand-in for Slurm; tests/slurm has the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.command import wsi_nuc
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Facts, Plan, PlanRow, save
from wsi_nuc.cohort.queue.scripts import write_scripts
from wsi_nuc.cohort.queue.slurm_pbs_lsf import QUEUES, Request, check_time, clock, memory_gib, seconds_of, tasks_of
from wsi_nuc.errors import UsageError
from wsi_nuc.executors import slurm_commands

FACTS = Facts("array", 40_000, 40_000, 0.25, "header", 10**8, 0.5, 50.0, 1000, 40)
REQUEST = Request(tasks=4, cpus=2, gpus=0, memory_gib=3, seconds=7200)
# Takes a second for a region, and ends like the real program when it has to stop.
PROGRAM = """#!/usr/bin/env bash
echo "$@" >> "$SEEN"
trap 'exit 75' USR1 TERM
[[ -z ${ADDS:-} ]] || echo "region 1" >> "${7}"
for _ in {1..200}; do sleep 0.05; done
"""
COMMANDS = {
    "scontrol": 'echo "$@" >> "$CALLED"; [[ -z ${OVER:-} ]] || exit 1; kill -TERM "$PPID"',
    "wsi-nuc": PROGRAM,
}


def plan_of(slides: int, **estimate: float) -> Plan:
    rows = tuple(PlanRow(line, f"s{line}", f"/slides/{line}.svs", facts=FACTS) for line in range(slides))
    return Plan({}, rows, estimate=estimate)


@pytest.fixture
def cohort(tmp_path: Path) -> CohortFolder:
    folder = CohortFolder(tmp_path / "a cohort")
    save(folder, plan_of(8), overwrite=False)
    return folder


class Task:
    """A task of an array, run in a shell of its own. `requeued` holds the calls of scontrol."""

    def __init__(self, cohort: CohortFolder, request: Request, number: int = 3, **environment: str) -> None:
        place = cohort.root.parent
        for name, text in COMMANDS.items():
            (place / "bin").mkdir(exist_ok=True)
            (place / "bin" / name).write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}\n")
            (place / "bin" / name).chmod(0o755)
        self._seen, self._called = place / "seen", place / "called"
        given = {
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "SEEN": str(self._seen),
            "CALLED": str(self._called),
            "SLURM_ARRAY_JOB_ID": "70",
            "SLURM_ARRAY_TASK_ID": str(number),
            # For the last task this is the id of the whole array.
            "SLURM_JOB_ID": "70",
        }
        script = write_scripts(cohort, QUEUES["slurm"], request).array
        self.process = subprocess.Popen(
            ["bash", script], env=os.environ | given | environment, stderr=subprocess.PIPE, text=True
        )

    def wait_until_it_runs(self, times: int = 1) -> None:
        end = time.monotonic() + 60
        while len(self.calls) < times and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.1)

    @property
    def calls(self) -> list[str]:
        return self._seen.read_text().splitlines() if self._seen.exists() else []

    @property
    def requeued(self) -> list[str]:
        return self._called.read_text().splitlines() if self._called.exists() else []

    def end(self) -> tuple[int, str]:
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


def test_only_the_warning_puts_a_task_back_and_it_alone(cohort: CohortFolder) -> None:
    task = Task(cohort, REQUEST)
    task.wait_until_it_runs()
    task.process.send_signal(signal.SIGUSR1)
    task.end()
    assert task.requeued == ["requeue Incomplete 70_3"]
    assert "--shard 3/4 --journal" in task.calls[0]


@pytest.mark.parametrize("before", [(), (signal.SIGUSR1,)], ids=["at once", "after a warning"])
def test_a_cancelled_task_ends(cohort: CohortFolder, before: Sequence[signal.Signals]) -> None:
    """Slurm's TERM is a cancel, or a decision of its own that it carries out itself."""
    task = Task(cohort, REQUEST)
    task.wait_until_it_runs()
    for number in (*before, signal.SIGTERM):
        task.process.send_signal(number)
    code, _ = task.end()
    assert code == 143
    assert task.requeued == []


def test_a_task_that_slurm_no_longer_runs_is_not_put_back(cohort: CohortFolder) -> None:
    """The task was cancelled, but its signal has not come yet."""
    task = Task(cohort, REQUEST, OVER="yes")
    task.wait_until_it_runs()
    task.process.send_signal(signal.SIGUSR1)
    code, said = task.end()
    assert code == 75
    assert "Submit number 3 again" in said


def test_restarts_without_a_region_come_to_an_end(cohort: CohortFolder) -> None:
    request = replace(REQUEST, restarts=2, seconds=600)
    for attempt, adds in enumerate(["", "1", "", ""], start=1):
        task = Task(cohort, request, **({"ADDS": adds} if adds else {}))
        task.wait_until_it_runs(attempt)
        task.process.send_signal(signal.SIGUSR1)
        code, said = task.end()
    # A finished region between them starts the count anew.
    assert len(task.requeued) == 3
    assert code == 1
    assert "stopped 2 times" in said
    assert "Raise --time, which is 00:10:00" in said


@pytest.mark.parametrize("number", [1, 3, 4])
def test_shares_are_those_of_the_plan_whatever_is_submitted(cohort: CohortFolder, number: int) -> None:
    alone = {"SLURM_ARRAY_TASK_MIN": str(number), "SLURM_ARRAY_TASK_COUNT": "1"}
    task = Task(cohort, REQUEST, number, **alone)
    task.wait_until_it_runs()
    task.process.terminate()
    task.end()
    assert f"--shard {number}/4 " in task.calls[0]


@pytest.mark.parametrize(("retry", "command"), [(False, "run"), (True, "retry")])
def test_what_failed_can_be_tried_again_by_an_array(retry: bool, command: str, cohort: CohortFolder) -> None:
    task = Task(cohort, replace(REQUEST, retry=retry))
    task.wait_until_it_runs()
    task.process.terminate()
    task.end()
    assert task.calls[0].startswith(f"cohort {command} {cohort.root} --shard 3/4")


def test_what_lies_beyond_one_array_counts_on(cohort: CohortFolder) -> None:
    task = Task(cohort, replace(REQUEST, tasks=1500), 7, FIRST="1000")
    task.wait_until_it_runs()
    task.process.terminate()
    task.end()
    assert "--shard 1007/1500 " in task.calls[0]
    submit = write_scripts(cohort, QUEUES["slurm"], replace(REQUEST, tasks=1500), 1000).submit.read_text()
    assert "--array=1-1000 --export=ALL,FIRST=0 " in submit
    assert "--array=1-500 --export=ALL,FIRST=1000 " in submit


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda cohort: cohort.plan.rename(cohort.plan.with_name("hidden")), "this node does not see"),
        (lambda cohort: save(cohort, plan_of(9), overwrite=True), "planned anew"),
    ],
    ids=["not seen", "changed"],
)
def test_a_cohort_that_is_missing_or_was_planned_anew_is_refused(
    cohort: CohortFolder, spoil: object, words: str
) -> None:
    script = write_scripts(cohort, QUEUES["slurm"], REQUEST).array
    assert callable(spoil)
    spoil(cohort)
    task = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(
        ["bash", script], env=os.environ | task, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert words in done.stderr


def test_the_node_knows_its_own_disk(cohort: CohortFolder) -> None:
    task = Task(cohort, replace(REQUEST, stage="$MY_DISK/slides"), MY_DISK="/node/disk")
    task.wait_until_it_runs()
    task.process.terminate()
    task.end()
    assert task.calls[0].endswith("--set stage=/node/disk/slides")
    code, said = Task(cohort, replace(REQUEST, stage="$MY_DISK/slides")).end()
    assert code
    assert "MY_DISK: is not set on this node" in said
    with pytest.raises(UsageError, match="is not the path of a folder"):
        write_scripts(cohort, QUEUES["slurm"], replace(REQUEST, stage="$(rm -r /)"))


@pytest.mark.parametrize("queue", QUEUES)
def test_every_queue_gets_scripts_that_a_shell_can_read(queue: str, cohort: CohortFolder) -> None:
    request = replace(
        REQUEST, gpus=2, at_once=16, partition="big", account="lab", prologue=["module load x"], allow_failed=True
    )
    made = write_scripts(cohort, QUEUES[queue], request)
    for path in (made.array, made.collect, made.submit):
        subprocess.run(["bash", "-n", path], check=True)
    array = made.array.read_text()
    assert all(part in array for part in ("SHARDS=4", "--allow-failed", "module load x", "big", "lab"))
    assert "%16" in made.submit.read_text()


def test_sizes_come_from_the_estimate() -> None:
    plan = plan_of(100, worker_seconds=200_000.0, seconds_a_tile=0.5)
    tasks = tasks_of(plan, cpus=4, seconds=7200, most=200)
    assert tasks == 15
    assert 200_000 / 4 / tasks < 7200 / 2
    assert tasks_of(plan, cpus=1, seconds=7200, most=20) == 20
    assert tasks_of(plan_of(3, worker_seconds=1e6), cpus=1, seconds=7200, most=200) == 3
    # It was measured as 0.9 and 2.3 GiB.
    assert [memory_gib(plan, workers) for workers in (1, 4)] == [2, 4]
    assert memory_gib(plan_of(1, worker_bytes=4 * 2**30), 2) == 11
    check_time(plan, 600)
    with pytest.raises(UsageError, match="a region takes about 600 s"):
        check_time(plan_of(1, seconds_a_tile=60.0), 900)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1d12h", 129_600), ("02:00:00", 7200), ("1-12:00:00", 129_600)],
)
def test_times(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds
    assert seconds_of(clock(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "2", "2 hours", "0h", "h"])
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="2h, 90m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({}, "there is no sbatch here"),
        ({"sbatch": "echo slurm 16.05.3"}, "at least 20.11"),
        ({"sbatch": "echo no controller >&2; exit 1"}, "does not answer"),
    ],
    ids=["none", "old", "silent"],
)
def test_without_a_slurm_that_will_do_one_sentence_says_so(
    answers: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=words):
        slurm_commands.check_slurm("cohort slurm")


NOT_ALLOWED = "Invalid account or account/partition combination specified"


@pytest.mark.parametrize(
    ("refused", "remedy"),
    [("--test-only", "Give an --account and a --partition"), ("--parsable", "Mend what it names, then: bash ")],
    ids=["before", "only when it is submitted"],
)
def test_an_account_that_may_not_submit_gets_one_sentence(
    refused: str, remedy: str, cohort: CohortFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in repeats what Slurm says, since the real one of tests/slurm does not keep accounts."""
    sbatch_says = f"""case "$1" in
    --version) echo slurm 23.11.4;;
    {refused}) echo 'sbatch: error: Batch job submission failed: {NOT_ALLOWED}' >&2; exit 1;;
    esac"""
    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": sbatch_says, "scontrol": "echo 'MaxArraySize = 1001'"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    done = wsi_nuc("cohort", "slurm", cohort.root, "--submit", "--account", "nobody")
    assert done.returncode == 2
    (sentence,) = done.stderr.strip().splitlines()
    assert NOT_ALLOWED in sentence
    assert remedy in sentence
