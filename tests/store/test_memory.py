"""The writer needs memory for a few row groups, however many nuclei come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys, pathlib
from tests.store.build import CLASSES, core_boxes_l0, nuclei
from wsi_nuc.store.nuclei_columns import NucleiWriter
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.zarrfile import ZarrFolder
table = nuclei(2500)
with NucleiWriter(ZarrFolder(made_folder(pathlib.Path(sys.argv[1]))), CLASSES, 0.25, core_boxes_l0) as writer:
    for _ in range(int(sys.argv[2]) // 2500):
        writer.append(table)
    writer.finish(1.0)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mib(store: Path, count: int) -> float:
    command = [sys.executable, "-c", CODE, str(store), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


@pytest.mark.slow
def test_four_times_the_nuclei_take_no_more_memory(tmp_path: Path) -> None:
    few, many = peak_mib(tmp_path / "few", 80_000), peak_mib(tmp_path / "many", 320_000)
    # Held rows would take 90 MiB here: 240,000 rows of 20 vertices and their columns.
    assert many < few + 24
