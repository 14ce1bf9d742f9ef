"""Rows 5 and 6: a run that is asked to stop ends soon, keeps every finished region, and goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.command import start, wait_until_it_listens
from tests.faults.one_run import digest_after, digest_of, draw, published, run_one
from wsi_nuc.errors import INTERRUPTED, OK
from wsi_nuc.events import Event, SlideStarted

# After this time a batch system kills a process that it has asked to stop.
GRACE_S = 30


@pytest.fixture(scope="module")
def long_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four regions of one tile, so that there is time to stop between the first and the last."""
    return draw(tmp_path_factory.mktemp("signals"), size=1536, seed=7, density=0.5)


@pytest.fixture(scope="module")
def unstopped(long_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return digest_after(long_slide, tmp_path_factory.mktemp("unstopped"))


def parts(out: Path) -> list[Path]:
    return list(out.glob(".wsi-nuc/parts/*/*/*.arrow"))


def started(slide: Path, out: Path, *options: object) -> subprocess.Popen[str]:
    """A run on two workers that has finished its first region."""
    same = ("--tissue", "none", "--region-size", 256)
    process = start("run", slide, "--out", out, "--workers", 2, *same, "--json", *options)
    while not parts(out) and process.poll() is None:
        time.sleep(0.02)
    return process


def check_resumed(slide: Path, out: Path, digest: str) -> None:
    """Nothing is visible yet, and the run that goes on takes every part that is there."""
    kept, resumed = len(parts(out)), []

    def note(event: Event) -> None:
        if isinstance(event, SlideStarted):
            resumed.append(event.regions_resumed)

    assert published(out) == []
    assert run_one(slide, out, note).exit_code == OK
    assert resumed == [kept]
    assert digest_of(out) == digest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_row_05_preemption(number: signal.Signals, long_slide: Path, unstopped: str, tmp_path: Path) -> None:
    with started(long_slide, tmp_path) as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=GRACE_S)
    assert process.returncode == INTERRUPTED
    assert '"interrupted"' in output
    assert parts(tmp_path)
    check_resumed(long_slide, tmp_path, unstopped)


# Modules of the run that are imported one after the other while it starts.
IMPORTED = ["asyncio.sslproto", "shapely.lib", "psutil", "wsi_nuc.run.session"]


@pytest.mark.parametrize("module", IMPORTED)
def test_a_stop_while_a_module_is_imported_waits_until_it_is_whole(module: str, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, AtImport())
sys.argv = ["wsi-nuc", "run", "absent.svs", "--json", "--out", {str(tmp_path)!r}]
from wsi_nuc.cli import main
main()
"""
    stopped = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=GRACE_S, check=False
    )
    assert stopped.returncode == INTERRUPTED, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "stopped by SIGTERM" in stopped.stderr
    assert '"interrupted"' in stopped.stdout


def test_row_06_interrupted_twice(long_slide: Path, unstopped: str, tmp_path: Path) -> None:
    with started(long_slide, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=GRACE_S)
    assert process.returncode == INTERRUPTED
    check_resumed(long_slide, tmp_path, unstopped)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_more_signals_to_the_plain_loop(
    number: signal.Signals, long_slide: Path, unstopped: str, tmp_path: Path
) -> None:
    with started(long_slide, tmp_path, "--scheduler", "serial") as process:
        process.send_signal(number)
        process.communicate(timeout=GRACE_S)
    assert process.returncode == INTERRUPTED
    check_resumed(long_slide, tmp_path, unstopped)


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.6, 1.2, 1.8, 2.4])
def test_more_interrupts_of_the_whole_group_while_it_starts(
    delay_s: float, long_slide: Path, tmp_path: Path
) -> None:
    """A terminal sends SIGINT to workers, too, also to those that are just starting."""
    with start("run", long_slide, "--out", tmp_path, "--workers", 2, "--json", start_new_session=True) as process:
        wait_until_it_listens(process)
        time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=GRACE_S)
    assert process.returncode == INTERRUPTED
    assert "stopped by SIGINT" in errors
    assert "Traceback" not in errors
    assert '"interrupted"' in output
    assert published(tmp_path) == []
