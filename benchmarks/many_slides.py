"""64 small slides in one call against one slide of their area: what each further slide costs.

A further slide costs about 0.15 s of processor time whatever the model: its tissue, its sixty files, their
checksums.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows

SLIDES, EDGE = 64, 2048


def measure() -> list[Row]:
    # Full of tissue, so that both hold the same work.
    small = [synthetic(f"small-{seed}.svs", EDGE, seed=seed, tissue=1.0) for seed in range(SLIDES)]
    large = synthetic("large.svs", EDGE * 8, seed=99, tissue=1.0)
    return [_row(model, small, large) for model in ("default", "classical")]


def _row(model: str, small: list[Path], large: Path) -> Row:
    ratio = measured_run([large], model=model)["wall_s"] / measured_run(small, model=model)["wall_s"]
    what = f"{model}: {SLIDES} slides of {EDGE} px / one of {EDGE * 8} px, by area"
    return Row(what, ratio, "x", ">= 0.9", ratio >= 0.9)


if __name__ == "__main__":
    print_rows(measure())
