"""kill -9 at any durable call leaves the old or the new result, and the same command finishes the work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, mode: str, step: int) -> list[list[str]]:
    command = [sys.executable, "-m", "tests.store.kill_child", str(folder), mode, str(step)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


def check(rows: list[list[str]], allowed_at_once: set[str], allowed_after: set[str]) -> None:
    killed = [row for row in rows if row[1] == "9"]
    assert len(killed) >= len(rows) - 2
    assert {row[2] for row in killed} <= allowed_at_once
    assert {row[3] for row in killed} <= allowed_after
    assert {row[4] for row in rows} == {"0"}
    assert {row[5] for row in rows} == {"1"}


@pytest.mark.parametrize("mode", ["pack", "unpack"])
def test_killed_while_one_form_takes_the_place_of_the_other(tmp_path: Path, mode: str) -> None:
    # As above: the old form is moved away before the new form is visible.
    check(run(tmp_path, mode, 60), {"old", "1", "nothing"}, {"old", "1"})


@pytest.mark.slow
def test_killed_while_overwriting(tmp_path: Path) -> None:
    check(run(tmp_path, "exchange", 20), {"old", "1"}, {"old", "1"})


@pytest.mark.slow
def test_killed_while_overwriting_without_an_atomic_exchange(tmp_path: Path) -> None:
    # Between the two renames, neither result is visible; the next run puts the old one back.
    check(run(tmp_path, "two-steps", 20), {"old", "1", "nothing"}, {"old", "1"})
