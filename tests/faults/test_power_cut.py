"""Row 33: whatever a power cut takes that was not flushed, the old or the new result is complete."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Lock

import pytest

from tests.faults.one_run import digest_after, digest_of, run_one
from tests.faults.power_cut import Disk
from tests.store.faults import before_call
from wsi_nuc.errors import OK

VISIBLE = {"rename", "exchange"}


def cut_and_resume(disk: Disk, before: set[str], done: str, slide: Path, place: Path, resume: bool) -> None:
    """Both kinds of power cut now. An old or the new result is left, and the same command makes the new one."""
    for names_kept in (True, False):
        disk.cut(place, names_kept)
        assert digest_of(place / "out") in before
        if resume:
            assert digest_after(slide, place / "out", overwrite=True) == done
        shutil.rmtree(place)


def check(slide: Path, undisturbed: str, folder: Path, old: bool, step: int) -> None:
    root, place = folder / "disk", folder / "after"
    root.mkdir()
    if old:
        run_one(slide, root / "out", labels=True)
    before = {digest_of(root / "out"), undisturbed}
    disk, calls, alone = Disk(root), list[str](), Lock()

    def look(operation: str, path: Path) -> None:
        # Files are flushed by many threads, and the run that goes on after the cut makes durable calls, too.
        if alone.acquire(blocking=False):
            calls.append(operation)
            moved = bool(VISIBLE.intersection(calls[-2:]))
            if moved or len(calls) % step == 0:
                cut_and_resume(disk, before, undisturbed, slide, place, resume=moved)
            alone.release()

    with disk.watched():
        with before_call(look):
            assert run_one(slide, root / "out", overwrite=True).exit_code == OK
        # What was reported as done survives.
        cut_and_resume(disk, {undisturbed}, undisturbed, slide, place, resume=False)


@pytest.mark.parametrize("old", [False, True], ids=["new", "overwritten"])
def test_row_33_unsynced_writes_dropped(slide: Path, undisturbed: str, in_memory: Path, old: bool) -> None:
    check(slide, undisturbed, in_memory, old, step=40)


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["new", "overwritten"])
def test_more_power_cuts_at_every_call(slide: Path, undisturbed: str, in_memory: Path, old: bool) -> None:
    check(slide, undisturbed, in_memory, old, step=1)
