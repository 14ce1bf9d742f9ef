"""Rows 21 and 26: files that end too early, and headers that claim what no file can hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.one_run import assert_told, published, run_one
from tests.slides.hostile import HOSTILE
from tests.slides.make import SAMPLES, structure_offsets
from wsi_nuc.errors import SLIDES, SlideError
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import SlideRef

MOST_MIB, MOST_SECONDS = 512, 5


@pytest.mark.parametrize("name", ["aperio.svs", "generic.tif", "pyramid.ome.tif"])
def test_row_21_slide_truncated_at_every_structure(name: str, tmp_path: Path) -> None:
    path = SAMPLES[name].make(tmp_path / name)
    whole = path.read_bytes()
    cuts = sorted({cut + near for cut in structure_offsets(path) for near in (-1, 0, 1)})
    cuts = [cut for cut in cuts if cut < len(whole)]
    assert len(cuts) > 100
    for number, cut in enumerate(cuts):
        path.write_bytes(whole[:cut])
        with pytest.raises(SlideError) as caught:
            open_slide(SlideRef(str(path)))
        assert name in str(caught.value), cut
        # A whole run for some cuts only, since it begins by opening the slide as this test does.
        if number % 100 == 0:
            assert_told(run_one(path, tmp_path / "out"), SLIDES, name)
    assert published(tmp_path / "out") == []


def test_row_26_headers_that_claim_the_impossible(tmp_path: Path) -> None:
    paths = []
    for number, (make, _) in enumerate(HOSTILE.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(make(folder))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.faults.headers_child", str(out), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    # If a library crashes, the process ends, and the slide after the last answer is to blame.
    assert len(answers) == len(paths), (list(HOSTILE)[len(answers)], done.returncode, done.stderr[-2000:])
    for (name, (_, words)), answer in zip(HOSTILE.items(), answers, strict=True):
        assert answer["exit_code"] == SLIDES, (name, answer)
        assert re.search(words, answer["error"]), (name, answer)
        assert answer["peak_mib"] < MOST_MIB, (name, answer)
        assert answer["seconds"] < MOST_SECONDS, (name, answer)
    assert published(out) == []
