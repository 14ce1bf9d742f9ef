"""64 small slides in one call against one slide of their area: what each further slide costs."""

from __future__ import annotations

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows

SLIDES, EDGE = 64, 2048


def measure() -> list[Row]:
    # Full of tissue, so that both hold the same work.
    small = [synthetic(f"small-{seed}.svs", EDGE, seed=seed, tissue=1.0) for seed in range(SLIDES)]
    large = synthetic("large.svs", EDGE * 8, seed=99, tissue=1.0)
    rates = []
    for slides in (small, [large]):
        run = measured_run(slides)
        rates.append(run["tiles"] / run["wall_s"])
    ratio = rates[0] / rates[1]
    return [Row(f"{SLIDES} slides of {EDGE} px / one of {EDGE * 8} px", ratio, "x", ">= 0.9", ratio >= 0.9)]


if __name__ == "__main__":
    print_rows(measure())
