"""Rows 11 to 15: where the disk is full, fails or cannot be written, nothing half-done is published."""

from __future__ import annotations

import errno
import os
import shutil
from itertools import cycle
from pathlib import Path

import pytest

from tests.faults.conftest import SmallDisk, remount
from tests.faults.one_run import NAME, assert_told, digest_after, digest_of, published, run_one, run_or_error
from tests.store.faults import failing, recording
from wsi_nuc.errors import STORAGE

CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE)
# A run makes more calls than this until both of its parts are there.
BEFORE_PARTS = 40


@pytest.mark.parametrize("percent", [10, 50, 99])
def test_row_11_disk_that_runs_full(
    slide: Path, undisturbed: str, in_memory: Path, small_disk: SmallDisk, percent: int
) -> None:
    run_one(slide, in_memory, keep_parts=True)
    # A disk in memory takes whole pages for each file, and none for folders.
    sizes = [path.stat().st_size for path in in_memory.rglob("*") if path.is_file()]
    disk = small_disk(sum(-(-size // 4096) * 4 for size in sizes) * percent // 100)
    assert_told(run_or_error(slide, disk), STORAGE, "No space left on device", "bytes needed", "free")
    assert published(disk) == []
    remount(disk, "size=64m")
    assert digest_after(slide, disk) == undisturbed


@pytest.fixture
def resumable(slide: Path, in_memory: Path) -> tuple[Path, list[str]]:
    """An output folder with all parts and no result, and the durable calls that publishing from there makes."""
    out = in_memory / "out"
    run_one(slide, out, keep_parts=True)
    shutil.rmtree(out / f"{NAME}.zarr")
    with recording() as calls:
        run_one(slide, out, keep_parts=True)
    shutil.rmtree(out / f"{NAME}.zarr")
    return out, calls


def chosen(calls: list[str], step: int) -> list[int]:
    """Every `step`-th call, and the first and the last of each kind."""
    first = {calls.index(kind) for kind in calls}
    last = {len(calls) - 1 - calls[::-1].index(kind) for kind in calls}
    return sorted({*range(0, len(calls), step), *first, *last})


def check_failures(slide: Path, undisturbed: str, resumable: tuple[Path, list[str]], step: int) -> None:
    """Each run goes on from what the failed one before it left."""
    out, calls = resumable
    last_rename = len(calls) - 1 - calls[::-1].index("rename")
    for number, code in zip(chosen(calls, step), cycle(CODES), strict=False):
        with failing(number, code):
            result = run_or_error(slide, out, keep_parts=True)
        assert_told(result, STORAGE, os.strerror(code))
        # After the rename only flushes of folders are left: the result is visible, and whole.
        assert digest_of(out) == (undisturbed if number > last_rename else ""), (number, calls[number])
        assert published(out) == ([f"{NAME}.zarr"] if number > last_rename else [])
        assert list((out / ".wsi-nuc" / "staging").glob("*")) == []
        if number > last_rename:
            shutil.rmtree(out / f"{NAME}.zarr")
    assert digest_after(slide, out) == undisturbed


def test_row_12_errors_of_writes_flushes_and_renames(
    slide: Path, undisturbed: str, in_memory: Path, resumable: tuple[Path, list[str]]
) -> None:
    for number, code in zip(range(0, BEFORE_PARTS, 3), cycle(CODES), strict=False):
        out = in_memory / "fresh" / str(number)
        with failing(number, code):
            assert_told(run_or_error(slide, out), STORAGE, os.strerror(code))
        assert published(out) == []
    check_failures(slide, undisturbed, resumable, step=13)


@pytest.mark.slow
def test_more_errors_at_every_single_call(
    slide: Path, undisturbed: str, resumable: tuple[Path, list[str]]
) -> None:
    for _ in CODES:
        check_failures(slide, undisturbed, resumable, step=1)
        shutil.rmtree(resumable[0] / f"{NAME}.zarr")


def test_row_13_close_that_fails(slide: Path, undisturbed: str, resumable: tuple[Path, list[str]]) -> None:
    out, calls = resumable
    closes = calls.count("close")
    for number in (0, closes // 2, closes - 1):
        with failing(number, errno.EIO, only="close"):
            assert_told(run_or_error(slide, out, keep_parts=True), STORAGE, os.strerror(errno.EIO))
        assert published(out) == []
    assert digest_after(slide, out) == undisturbed


def test_row_14_read_only_output(slide: Path, small_disk: SmallDisk) -> None:
    disk = small_disk(1024)
    remount(disk, "ro")
    result = run_or_error(slide, disk, model="is never looked for")
    assert_told(result, STORAGE, disk, "Read-only file system", "--out")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("option", ["scratch", "stage"])
def test_row_15_full_scratch(
    slide: Path, undisturbed: str, small_disk: SmallDisk, tmp_path: Path, option: str
) -> None:
    # Locks and probes fit; neither a part nor the slide does.
    disk = small_disk(24)
    result = run_or_error(slide, tmp_path, **{option: disk})
    assert_told(result, STORAGE, disk, "needed")
    assert published(tmp_path) == []
    remount(disk, "size=64m")
    assert digest_after(slide, tmp_path, **{option: disk}) == undisturbed
