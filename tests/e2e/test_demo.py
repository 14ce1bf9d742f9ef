"""The recipes of `pipelines/` run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.demo import PICTURE_PX, densest_box


def test_the_demo_finds_nuclei_and_draws_them(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "pipelines" / "demo.py"
    command = [sys.executable, script, "--folder", tmp_path, "--size", "1024"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "demo.svs.zarr" / "manifest.json").exists()
    assert cv2.imread(str(tmp_path / "nuclei.png")).std() > 0
    detected, drawn = _found_of_drawn(done.stdout)
    assert detected >= 0.4 * drawn


@settings(max_examples=50, deadline=None)
@given(width=st.integers(1024, 5000), height=st.integers(1024, 5000), seed=st.integers(0, 2**32 - 1))
def test_the_picture_lies_in_the_slide_and_shows_where_most_nuclei_are(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    crowd = rng.uniform(0, [width, height])
    xy = np.clip(rng.normal(crowd, 30, (200, 2)), 0, np.nextafter([width, height], 0))
    box = densest_box(pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1]}), width, height)
    assert 0 <= box.x0 <= box.x1 - PICTURE_PX == box.x0 <= width - PICTURE_PX
    assert 0 <= box.y0 <= box.y1 - PICTURE_PX == box.y0 <= height - PICTURE_PX
    inside = (xy >= (box.x0, box.y0)).all(1) & (xy < (box.x1, box.y1)).all(1)
    assert inside.mean() > 0.5


def test_without_nuclei_the_picture_is_a_corner() -> None:
    nothing = pd.DataFrame({"x": np.zeros(0), "y": np.zeros(0)})
    assert densest_box(nothing, 2000, 1500).x1 == PICTURE_PX


def _found_of_drawn(text: str) -> tuple[int, int]:
    """From the line "of N nuclei that were drawn, M are found"."""
    line = next(line for line in text.splitlines() if line.startswith("of "))
    drawn, detected = (int(word) for word in line.replace(",", "").split() if word.isdigit())
    return detected, drawn
