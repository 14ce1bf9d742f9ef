"""64 small slides in one call against one slide of their area: what each further slide costs.

A further slide costs about 0.15 s of processor time, whatever the model: for its tissue, its sixty files and their
checksums.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows

EDGE, SMALL_EDGE = 2048, 512


def measure(small: bool = False) -> list[Row]:
    side, edge = (2, SMALL_EDGE) if small else (8, EDGE)
    # Full of tissue, so that both hold the same work.
    slides = [synthetic(f"small-{seed}.svs", edge, seed=seed, tissue=1.0) for seed in range(side**2)]
    large = synthetic("large.svs", edge * side, seed=99, tissue=1.0)
    models = ("classical",) if small else ("default", "classical")
    return [_row(model, slides, large, edge) for model in models]


def _row(model: str, slides: list[Path], large: Path, edge: int) -> Row:
    ratio = measured_run([large], model=model)["wall_s"] / measured_run(slides, model=model)["wall_s"]
    what = f"{model}: {len(slides)} slides of {edge} px / one of their area"
    return Row(what, ratio, "x", ">= 0.9", ratio >= 0.9)


if __name__ == "__main__":
    print_rows(measure())
