"""Synthetic slides for the benchmarks: large ones, drawn once per process, and many small ones."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from wsi_nuc.synth import SynthSpec, write_slide

MPP = 0.5
# This many slides are drawn. All others are copies with another word in the header.
DRAWN, WORD = 8, b"wsi-nuc synth"


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


def write_slides(paths: Sequence[Path], size: int, density: float = 0.25) -> None:
    """Writes small slides of MPP, no two with the same content."""
    for i, path in enumerate(paths):
        if i < DRAWN:
            write_slide(path, SynthSpec(size=size, mpp=MPP, seed=i, density=density))
        else:
            path.write_bytes(paths[i % DRAWN].read_bytes().replace(WORD, WORD[:-5] + f"{i:05}".encode()))
