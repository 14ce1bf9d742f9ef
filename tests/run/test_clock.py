"""Time shows nowhere in a result: neither the machine's clock nor the dates of files."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK
from wsi_nuc.events import Event, RegionFinished
from wsi_nuc.run import run_slides
from wsi_nuc.synth import SynthSpec, write_slide

DAY_S = 86_400


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clock") / "a.svs"
    write_slide(path, SynthSpec(size=1536, mpp=0.5, seed=4))
    return path


def manifest(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "a.svs.zarr" / "manifest.json").read_text())
    return {key: value for key, value in read.items() if key != "run"}


def stop_after_one_region(event: Event) -> None:
    if isinstance(event, RegionFinished):
        raise KeyboardInterrupt


def scramble(folder: Path) -> int:
    """Random dates, decades apart, for every file; returns their number."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    draw = random.Random(1)
    for path in files:
        os.utime(path, (draw.uniform(0, 4e9), draw.uniform(0, 4e9)))
    return len(files)


def test_a_clock_that_jumps_and_scrambled_dates_do_not_show(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(out: str) -> RunConfig:
        return RunConfig(out=tmp_path / out, scheduler="serial", region_size=1024, tissue="none")

    (first,) = run_slides(config("right"), [str(slide)])
    assert first.exit_code == OK
    real, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + DAY_S * (-1) ** next(jumps))
    with pytest.raises(KeyboardInterrupt):
        list(run_slides(config("wrong"), [str(slide)], stop_after_one_region))
    assert list((tmp_path / "wrong").glob(".wsi-nuc/parts/*/*/*.arrow"))
    assert scramble(tmp_path / "wrong") > 0
    (second,) = run_slides(config("wrong"), [str(slide)])
    assert second.exit_code == OK
    assert manifest(tmp_path / "wrong") == manifest(tmp_path / "right")
