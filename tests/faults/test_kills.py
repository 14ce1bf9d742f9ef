"""Rows 4 and 16: a run that is killed at any durable call, and many runs of one slide at once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.child import PUBLISHED, VERIFIED
from tests.faults.one_run import NAME, digest_of, published, run_one
from tests.store.faults import before_call

ROOT = Path(__file__).parents[2]
KILLED = 9


def child(*arguments: object) -> list[str]:
    """What `tests.faults.child` prints."""
    command = [sys.executable, "-m", "tests.faults.child", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_kills(slide: Path, undisturbed: str, out: Path, step: int) -> None:
    """After each kill nothing is visible or everything. The first run that is not killed finishes the work."""
    rows = [line.split("|") for line in child("kills", slide, out, step)]
    ends = [int(row[1]) for row in rows]
    killed = [row for row in rows if int(row[1]) == KILLED]
    assert set(ends) == {KILLED, 0}
    assert len(killed) > len(rows) / 2
    assert {row[2] for row in killed} == {"", undisturbed}
    assert {row[2] for row in rows[len(killed) :]} == {undisturbed}


def test_row_04_main_process_killed_at_every_durable_call(slide: Path, undisturbed: str, in_memory: Path) -> None:
    # A kill leaves the disk as it is, so a look before each call shows what a kill there would leave ...
    seen: list[str] = []
    with before_call(lambda operation, path: seen.append(digest_of(in_memory / "out"))):
        run_one(slide, in_memory / "out")
    assert set(seen) == {"", undisturbed}
    assert seen == sorted(seen, key=bool), "once visible, always visible"
    # ... and at some calls the process really dies, so that the next run has to go on from there.
    check_kills(slide, undisturbed, in_memory / "killed", step=9)


@pytest.mark.slow
def test_more_kills_at_every_single_call(slide: Path, undisturbed: str, in_memory: Path) -> None:
    check_kills(slide, undisturbed, in_memory / "killed", step=1)


def test_row_16_many_jobs_on_one_slide(slide: Path, undisturbed: str, in_memory: Path) -> None:
    ends = Counter(child("jobs", slide, in_memory, 64))
    assert ends == {f"{PUBLISHED}": 1, f"{VERIFIED}": 63}
    assert published(in_memory) == [f"{NAME}.zarr"]
    assert digest_of(in_memory) == undisturbed
