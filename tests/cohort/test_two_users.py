"""Users of one group share a cohort. If the folder does not let them, the message names its owner and a remedy."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cohort.two_users import ANN, BEN, GROUP
from wsi_nuc.errors import STORAGE
from wsi_nuc.store.verify import verify

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    # Not pytest's folder, which only root may enter.
    place = Path(tempfile.mkdtemp(prefix="wsi-nuc-users-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def said(root: Path, slides: list[Path]) -> dict[str, dict[str, Any]]:
    """What each step printed, by folder."""
    (root / "slides").mkdir()
    copies = [str(shutil.copy(slide, root / "slides")) for slide in slides[:2]]
    call = [sys.executable, "-m", "tests.cohort.two_users", str(root), *copies]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    begin = [place for place, step in enumerate(steps) if step["step"] == "ann plans"]
    parts = [steps[i:j] for i, j in zip(begin, [*begin[1:], None], strict=True)]
    return {
        name: {step["step"]: step["said"] for step in part}
        for name, part in zip(("group", "sticky", "closed"), parts, strict=True)
    }


def test_two_users_run_a_share_each_and_both_make_the_tables(root: Path, said: dict[str, Any]) -> None:
    results = said["group"]
    assert sorted({**results["ann's share"], **results["ben's share"]}.items()) == [
        ("a.svs", "published"),
        ("b.svs", "published"),
    ]
    assert [results["ann's tables"], results["ben's tables"]] == [2, 2]
    cohort = root / "group" / "cohort"
    everything = [cohort, *cohort.rglob("*")]
    assert {path.stat().st_uid for path in everything} == {ANN, BEN}
    assert {path.stat().st_gid for path in everything} == {GROUP}
    assert all(path.stat().st_mode & stat.S_IWGRP for path in everything)
    for name in ("a.svs", "b.svs"):
        assert verify(cohort / "results" / f"{name}.zarr") == []


def test_what_a_dead_user_left_in_sticky_folders_stops_nobody(root: Path, said: dict[str, Any]) -> None:
    results = said["sticky"]
    assert results["dies"] == ""
    assert results["ben runs"] == {"a.svs": "published", "b.svs": "published"}
    left = list((root / "sticky" / "cohort").rglob("*.arrow"))
    assert left
    assert {path.stat().st_uid for path in left} == {ANN}
    assert results["ben's tables"]["exit_code"] == STORAGE
    assert f"belongs to user {ANN}" in results["ben's tables"]["error"]
    assert "sticky" in results["ben's tables"]["error"]


def test_a_folder_that_its_user_does_not_share_is_refused_with_the_remedy(said: dict[str, Any]) -> None:
    results = said["closed"]["ben runs"]
    assert results["exit_code"] == STORAGE
    assert f"belongs to user {ANN}" in results["error"]
    assert "umask 002" in results["error"]
