"""Synthetic slides for the benchmarks, written once into a folder that goes with the process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from wsi_nuc.synth import SynthSpec, write_slide


@cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="wsi-nuc-bench-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def synthetic(
    name: str, size: int, seed: int = 1, tissue: float | str = "auto", height: int | None = None
) -> Path:
    path = folder() / name
    write_slide(path, SynthSpec(size=size, height=height, mpp=0.25, seed=seed, tissue=tissue))
    return path
