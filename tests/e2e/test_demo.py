"""The recipes of `pipelines/` run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2


def test_the_demo_finds_nuclei_and_draws_them(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "pipelines" / "demo.py"
    command = [sys.executable, script, "--folder", tmp_path, "--size", "1024"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "demo.svs.zarr" / "manifest.json").exists()
    assert cv2.imread(str(tmp_path / "nuclei.png")).std() > 0
    found, drawn = _found_of_drawn(done.stdout)
    assert found >= 0.4 * drawn


def _found_of_drawn(text: str) -> tuple[int, int]:
    """From the line "of N nuclei that were drawn, M are found"."""
    line = next(line for line in text.splitlines() if line.startswith("of "))
    drawn, found = (int(word) for word in line.replace(",", "").split() if word.isdigit())
    return found, drawn
