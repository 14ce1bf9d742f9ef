"""Rows 18 and 19: neither the machine's clock nor the dates of files matter."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.child import LAST
from tests.faults.one_run import NAME, digest_after, digest_of, published, run_one
from tests.faults.test_kills import child
from wsi_nuc.errors import OK
from wsi_nuc.events import Event, RegionFinished, Warned
from wsi_nuc.synth import SynthSpec, write_slide

DAY_S = 86_400


def scramble(folder: Path) -> None:
    """Random dates, decades apart, for every file and folder."""
    draw = random.Random(1)
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (draw.uniform(0, 4e9), draw.uniform(0, 4e9)))


def stop_when_waiting(event: Event) -> None:
    if isinstance(event, Warned) and "waiting" in event.message:
        raise KeyboardInterrupt


def test_row_18_stale_claims_of_a_dead_host(slide: Path, undisturbed: str, tmp_path: Path) -> None:
    """A run of this slide and one of another slide of the same name died while they published."""
    out, namesake = tmp_path / "out", tmp_path / NAME
    write_slide(namesake, SynthSpec(size=512, mpp=0.5, seed=6))
    assert child("killed", slide, out, LAST) == ["9"]
    (lock,) = ((out / ".wsi-nuc") / "runs").glob("*.lock")
    assert child("killed", namesake, out, LAST) == ["9"]
    left = {path.suffix for path in (out / ".wsi-nuc").rglob("*")}
    assert {".zarr", ".lock", ".sha256", ".arrow"} <= left
    scramble(out)
    # A lock that a living process holds is respected, however old it looks ...
    lock.touch()
    os.utime(lock, (0, 0))
    with lock.open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        with pytest.raises(KeyboardInterrupt):
            run_one(slide, out, stop_when_waiting)
    # ... and those of dead processes are not, however young they look: neither that of the slide nor that of its
    # name.
    assert run_one(slide, out, stop_when_waiting).exit_code == OK
    assert published(out) == [f"{NAME}.zarr"]
    assert digest_of(out) == undisturbed
    assert list(((out / ".wsi-nuc") / "staging").iterdir()) == []


def stop_after_one_region(event: Event) -> None:
    if isinstance(event, RegionFinished):
        raise KeyboardInterrupt


def test_row_19_clock_that_jumps_and_scrambled_dates(
    slide: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, out = tmp_path / NAME, tmp_path / "out"
    copy.write_bytes(slide.read_bytes())
    real, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + DAY_S * (-1) ** next(jumps))
    with pytest.raises(KeyboardInterrupt):
        run_one(copy, out, stop_after_one_region)
    assert list(out.glob(".wsi-nuc/parts/*/*/*.arrow"))
    scramble(tmp_path)
    assert digest_after(copy, out) == undisturbed
