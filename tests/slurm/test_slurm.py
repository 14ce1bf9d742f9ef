"""On a real Slurm, preempted tasks, a lost node and a slide over two nodes do not change the bytes of a result."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import slurm_signals
from tests.e2e.command import manifest, start, wsi_nuc
from tests.slurm.cluster import NODES, Slurm, until
from wsi_nuc.synth import SynthSpec, write_slide

SHARES = 8
LIMIT_S = 600


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four of sixteen regions each, which are at work for some seconds on any machine, and four small ones."""
    folder = tmp_path_factory.mktemp("slides")
    for seed in range(SHARES):
        write_slide(folder / f"s{seed}.svs", SynthSpec(size=3072 if seed < 4 else 256, mpp=0.5, seed=seed))
    return folder


def digests(results: Path) -> dict[str, str]:
    return {store.name: manifest(store)["digest"] for store in sorted(results.glob("*.zarr"))}


@pytest.fixture(scope="module")
def planned(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cohort = tmp_path_factory.mktemp("planned") / "cohort"
    small_regions = ("--set", "region_size=512", "--scheduler", "serial")
    done = wsi_nuc("cohort", "plan", f"{slides}/*.svs", "--out", cohort, *small_regions, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return cohort


@pytest.fixture(scope="module")
def serial(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cohort = copied(planned, tmp_path_factory.mktemp("serial"))
    done = wsi_nuc("cohort", "run", cohort, "--scheduler", "serial", "--quiet", timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return digests(cohort / "results")


def copied(cohort: Path, place: Path) -> Path:
    return Path(shutil.copytree(cohort, place / "cohort"))


def write_scripts(cohort: Path, *more: object) -> str:
    options = ("--tasks", SHARES, "--cpus-per-task", 1, "--memory", 1, *more)
    done = wsi_nuc("cohort", "slurm", cohort, *options, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def states(slurm: Slurm) -> dict[str, dict[str, str]]:
    """What Slurm says about every job and array task, over or not, by names such as 12_3 or 14."""
    jobs = {}
    for line in slurm.run("scontrol", "-o", "show", "job").splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobId" not in fields:
            continue
        name = f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}" if "ArrayJobId" in fields else fields["JobId"]
        jobs[name] = fields
    return jobs


def _is_python(process: psutil.Process, word: str) -> bool:
    try:
        return word in " ".join(process.cmdline()) and "python" in process.name()
    except psutil.Error:
        return False  # it has ended meanwhile


def halted(slurm: Slurm, node: str, word: str = "cohort") -> list[psutil.Process]:
    """Stop the programs that compute on a node, known by a word of their command, and return them."""
    stopped = [process for process in slurm.processes(node) if _is_python(process, word)]
    for process in stopped:
        process.suspend()
    return stopped


def has_been_told(process: psutil.Process) -> bool:
    """USR1 waits for the process to go on."""
    pending = re.search(r"ShdPnd:\s*([0-9a-f]+)", Path(f"/proc/{process.pid}/status").read_text())
    return pending is not None and bool(int(pending[1], 16) >> (signal.SIGUSR1 - 1) & 1)


def test_an_array_with_a_task_preempted_and_a_node_lost(
    with_slurm: Slurm, planned: Path, serial: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `cohort slurm --submit` to the tables and the report."""
    slurm, cohort = with_slurm, copied(planned, tmp_path)
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "stage"))
    output = write_scripts(cohort, "--stage", "$NODE_DISK", "--submit", "--at-once", 4)
    (array,) = re.findall(r"array (\d+)", output)
    until(lambda: has_parts(cohort), LIMIT_S, slurm.logs)

    # Nothing ends before it is preempted or lost, however fast the machine.
    for node in NODES:
        halted(slurm, node)
    urgent = ("-p", "urgent", "-w", "n1", "--exclusive", "-o", tmp_path / "urgent.txt")
    other = slurm.run("sbatch", *urgent, "--wrap", "sleep 1").split()[-1]
    first = halted(slurm, "n1")
    until(lambda: all(map(has_been_told, first)), LIMIT_S, slurm.logs)
    for process in first:
        process.resume()
    until(lambda: states(slurm)[other]["JobState"] in ("RUNNING", "COMPLETED"), LIMIT_S, slurm.logs)
    preempted = {name for name, job in states(slurm).items() if job.get("Restarts", "0") != "0"}
    assert preempted
    lost = {
        name
        for name, job in states(slurm).items()
        if name.startswith(f"{array}_") and job["JobState"] == "RUNNING" and job.get("NodeList") == "n2"
    }
    assert lost
    slurm.kill_node("n2")

    until(lambda: not slurm.jobs(), LIMIT_S, slurm.logs)
    over = states(slurm)
    tasks = {name: job for name, job in over.items() if name.startswith(f"{array}_")}
    assert len(tasks) == SHARES
    logs = "\n".join(path.read_text() for path in sorted((cohort / "queue" / "logs").glob("*.log")))
    assert {job["JobState"] for job in tasks.values()} == {"COMPLETED"}, logs
    assert all(tasks[name]["Restarts"] != "0" for name in preempted | lost)
    assert "stopped by SIGUSR1" in logs
    assert digests(cohort / "results") == serial
    status = wsi_nuc("cohort", "status", cohort, "--verify")
    assert status.returncode == 0, status.stdout + status.stderr
    assert (cohort / "cohort.parquet").exists(), logs
    assert (cohort / "report.html").exists(), logs
    slurm.start_node("n2")
    until(slurm.ready, LIMIT_S, slurm.logs)


def test_a_cancelled_task_stays_so_and_a_warned_one_alone_comes_back(
    slurm: Slurm, planned: Path, serial: dict[str, str], tmp_path: Path
) -> None:
    """In an array of two of the eight shares, whose last task has the id of the array."""
    cohort = copied(planned, tmp_path)
    write_scripts(cohort)
    array = slurm.run("sbatch", "--parsable", "--array=1,3", cohort / "queue" / "array.slurm").strip()
    first, last = f"{array}_1", f"{array}_3"
    until(lambda: has_parts(cohort), LIMIT_S, slurm.logs)
    at_work = [process for node in NODES for process in halted(slurm, node)]
    slurm.run("scancel", first)
    slurm.run("scancel", "--batch", "--signal=USR1", last)
    warned = [process for process in at_work if process.environ()["SLURM_ARRAY_TASK_ID"] == "3"]
    until(lambda: all(map(has_been_told, warned)), LIMIT_S, slurm.logs)
    for process in at_work:
        process.resume()
    until(lambda: not slurm.jobs(), LIMIT_S, slurm.logs)
    over = states(slurm)
    assert (over[first]["JobState"], over[first]["Restarts"]) == ("CANCELLED", "0")
    assert (over[last]["JobState"], over[last]["Restarts"]) == ("COMPLETED", "1")
    ((name, digest),) = digests(cohort / "results").items()
    assert digest == serial[name]


def test_the_benchmark_of_signals_runs(slurm: Slurm, tmp_path: Path) -> None:
    """With two tasks. An error would show with any number of tasks."""
    planned = slurm_signals.prepare(tmp_path, 2, size_px=512)
    peace, life_s = slurm_signals.fire(slurm, planned, tmp_path / "peace", "nothing", 2, 1.0)
    fired, _ = slurm_signals.fire(slurm, planned, tmp_path / "fire", "warning, then scancel", 2, life_s / 2)
    assert (peace.wrong, fired.wrong, fired.disturbed) == ([], [], [])
    assert len(fired.moments) == 2
    assert slurm_signals.digests(tmp_path / "fire") == slurm_signals.digests(tmp_path / "peace")
    assert all("cancel" in line for line in slurm_signals.table(fired).splitlines())


def has_parts(cohort: Path) -> bool:
    return any((cohort / "results" / ".wsi-nuc" / "parts").rglob("*.arrow"))


def one_slide(slurm: Slurm, slide: Path, out: Path, *more: object) -> list[str]:
    """The command of a run over two jobs of one worker each."""
    slurm_settings = {"jobs": 2, "cores": 1, "memory": "2GB", "interface": "lo", "time": "00:20:00"}
    settings = [f"--set=dask.slurm.{key}={value}" for key, value in slurm_settings.items()]
    command = ["run", slide, "--out", out, "--scheduler", "slurm", "--region-size", 512, *settings, *more]
    return [str(part) for part in command]


def new_jobs(slurm: Slurm, before: set[str]) -> set[str]:
    return {name for name, job in states(slurm).items() if name not in before and job["JobState"] == "RUNNING"}


def test_one_slide_over_two_nodes(with_slurm: Slurm, slides: Path, serial: dict[str, str], tmp_path: Path) -> None:
    before = set(states(with_slurm))
    done = wsi_nuc(*one_slide(with_slurm, slides / "s0.svs", tmp_path, "--quiet"), timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr + with_slurm.logs()
    ((_, digest),) = digests(tmp_path).items()
    assert digest == serial["s0.svs.zarr"]
    # An array of another test may still fall apart into its tasks.
    assert len([job for job in set(states(with_slurm)) - before if "_" not in job]) == 2
    # No key outlives its run.
    assert not list((tmp_path / ".wsi-nuc" / "slurm").glob("*.pem"))
    until(lambda: not with_slurm.jobs(), 60, with_slurm.logs)


def test_lost_jobs_are_submitted_again_and_a_killed_run_leaves_none(
    with_slurm: Slurm, slides: Path, serial: dict[str, str], tmp_path: Path
) -> None:
    command, before = one_slide(with_slurm, slides / "s2.svs", tmp_path), set(states(with_slurm))
    keys = tmp_path / ".wsi-nuc" / "slurm"
    running = start(*command)
    until(lambda: any(tmp_path.rglob("*.arrow")) or running.poll() is not None, LIMIT_S, with_slurm.logs)
    first = new_jobs(with_slurm, before)
    for node in NODES:
        halted(with_slurm, node, "dask_worker")
    with_slurm.run("scancel", *first)
    until(lambda: len(new_jobs(with_slurm, before | first)) == 2, LIMIT_S, with_slurm.logs)
    running.kill()
    said = running.communicate(timeout=60)[1]
    assert "worker jobs are gone" in said
    assert [path.stat().st_mode & 0o777 for path in keys.glob("*.pem")] == [0o600]
    until(lambda: not with_slurm.jobs(), 120, with_slurm.logs)
    done = wsi_nuc(*command, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert list(digests(tmp_path).values()) == [serial["s2.svs.zarr"]]
    assert not list(keys.glob("*.pem"))


def test_a_stopped_run_leaves_no_job_and_resumes(
    with_slurm: Slurm, slides: Path, serial: dict[str, str], tmp_path: Path
) -> None:
    command = one_slide(with_slurm, slides / "s1.svs", tmp_path, "--quiet")
    running = start(*command)
    until(lambda: any(tmp_path.rglob("*.arrow")) or running.poll() is not None, LIMIT_S, with_slurm.logs)
    running.send_signal(signal.SIGUSR1)
    stopped_at = time.monotonic()
    assert running.wait(60) == 75
    assert time.monotonic() - stopped_at < 60
    until(lambda: not with_slurm.jobs(), 120, with_slurm.logs)
    done = wsi_nuc(*command, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert list(digests(tmp_path).values()) == [serial["s1.svs.zarr"]]


def test_a_run_whose_jobs_never_start_ends_with_75(with_slurm: Slurm, slides: Path, tmp_path: Path) -> None:
    later = ("--set=dask.slurm.directives=[--begin=now+1hour]", "--set=dask.slurm.patience_s=8")
    done = wsi_nuc(*one_slide(with_slurm, slides / "s3.svs", tmp_path, *later), timeout=LIMIT_S)
    assert done.returncode == 75
    assert "0 of 2 workers, waiting since" in done.stderr
    assert "no worker for 8 s" in done.stderr
    until(lambda: not with_slurm.jobs(), 60, with_slurm.logs)


@pytest.mark.parametrize(
    ("setting", "words"),
    [("partition=nonsense", "nvalid partition"), ("interface=nonsense0", "no such network interface")],
)
def test_what_is_impossible_is_refused_in_one_sentence(
    setting: str, words: str, with_slurm: Slurm, slides: Path, tmp_path: Path
) -> None:
    bad = f"--set=dask.slurm.{setting}"
    done = wsi_nuc(*one_slide(with_slurm, slides / "s4.svs", tmp_path, bad), timeout=LIMIT_S)
    assert done.returncode == 2
    assert words in done.stderr
    assert "dask.slurm" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.pem"))


def test_an_array_that_slurm_refuses_is_reported_in_one_sentence(
    with_slurm: Slurm, planned: Path, tmp_path: Path
) -> None:
    cohort, before = copied(planned, tmp_path), set(states(with_slurm))
    options = ("--tasks", 2, "--cpus-per-task", 1, "--memory", 1, "--partition", "nonsense", "--submit")
    done = wsi_nuc("cohort", "slurm", cohort, *options, timeout=LIMIT_S)
    assert done.returncode == 2
    assert "nvalid partition" in done.stderr
    assert "Give an --account and a --partition that you may submit to" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert set(states(with_slurm)) == before


def test_without_slurm_the_option_says_so(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + "/bin-without-slurm")
    done = wsi_nuc("run", slides / "s4.svs", "--out", tmp_path, "--scheduler", "slurm")
    assert done.returncode == 2
    assert "no sbatch" in done.stderr
