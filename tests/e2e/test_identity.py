"""The same slide gives the same bytes, however the work is cut, spread, ordered or interrupted."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.command import answers, digest, manifest, start, wsi_nuc


@pytest.fixture(scope="module")
def reference(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the plain loop, which all others must equal."""
    out = tmp_path_factory.mktemp("serial")
    done = wsi_nuc("run", slide, "--out", out, "--scheduler", "serial", "--region-size", 1024, "--json")
    assert done.returncode == 0, done.stderr
    return Path(answers(done)[0]["store"])


@pytest.mark.parametrize(
    "options",
    [
        ("--scheduler", "serial", "--region-size", 512),
        ("--workers", 2, "--region-size", 512),
        pytest.param(("--scheduler", "serial", "--region-size", 4096), marks=pytest.mark.slow),
        pytest.param(("--workers", 1, "--region-size", 1024), marks=pytest.mark.slow),
        pytest.param(("--workers", 2, "--region-size", 2048), marks=pytest.mark.slow),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_workers_and_region_size_do_not_show(
    options: tuple[object, ...], slide: Path, reference: Path, tmp_path: Path
) -> None:
    done = wsi_nuc("run", slide, "--out", tmp_path, *options, "--json")
    assert done.returncode == 0, done.stderr
    again, first = manifest(answers(done)[0]["store"]), manifest(reference)
    assert again["files"] == first["files"]
    assert again["digest"] == first["digest"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_at_random_moments_leave_the_same_manifest(
    slide: Path, reference: Path, tmp_path: Path
) -> None:
    random_moment = random.Random(20)
    kills = 0
    for _ in range(60):
        with start("run", slide, "--out", tmp_path, "--scheduler", "serial", "--region-size", 512) as process:
            try:
                process.wait(timeout=random_moment.uniform(0.3, 4.0) if kills < 20 else 200)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
        if kills >= 20:
            break
        # It got through between two kills: start over, so that every kill meets a run at work.
        assert process.returncode == 0
        assert digest(tmp_path / "tissue.svs.zarr") == digest(reference)
        subprocess.run(["rm", "-r", tmp_path / "tissue.svs.zarr"], check=True)
    assert kills == 20
    assert digest(tmp_path / "tissue.svs.zarr") == digest(reference)
    assert wsi_nuc("verify", tmp_path / "tissue.svs.zarr").returncode == 0


def _workers_of(process: subprocess.Popen[str]) -> list[int]:
    import psutil

    # The first is the process that they are copies of.
    return [
        child.pid
        for child in psutil.Process(process.pid).children(recursive=True)
        if "multiprocessing.connection" in " ".join(child.cmdline())
    ][1:]


def test_a_killed_worker_does_not_show(slide: Path, reference: Path, tmp_path: Path) -> None:
    import psutil

    arguments = ("run", slide, "--out", tmp_path, "--workers", 2, "--region-size", 512)
    with start(*arguments) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".wsi-nuc/parts/*/*/*.arrow")) and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = _workers_of(process)
        assert workers, "the run ended before a worker could be killed"
        psutil.Process(random.Random(1).choice(workers)).kill()
        assert process.wait(timeout=200) == 0, process.stderr and process.stderr.read()
    assert digest(tmp_path / "tissue.svs.zarr") == digest(reference)


def test_no_process_is_left_after_the_main_process_was_killed(slide: Path, tmp_path: Path) -> None:
    import psutil

    with start("run", slide, "--out", tmp_path, "--workers", 2, "--region-size", 512) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".wsi-nuc/parts/*/*/*.arrow")) and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [psutil.Process(pid) for pid in _workers_of(process)]
        assert workers, "the run ended before it could be killed"
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
