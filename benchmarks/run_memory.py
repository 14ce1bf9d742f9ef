"""Peak memory of the main process on a sparse slide, and on one of four times its area."""

from __future__ import annotations

from benchmarks.child import measured_run
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows

TISSUE = 0.004
EDGES, SMALL_EDGES = (100_000, 200_000), (2_048, 4_096)


def measure(small: bool = False) -> list[Row]:
    edges, peaks = SMALL_EDGES if small else EDGES, []
    for edge in edges:
        slide = synthetic(f"sparse-{edge}.svs", edge, tissue=TISSUE)
        peaks.append(measured_run([slide])["peak_mib"])
    ratio = peaks[1] / peaks[0]
    return [
        Row(f"run, {edges[0]:,} x {edges[0]:,} px, main process", peaks[0], "MiB", "<= 1536", peaks[0] <= 1536),
        Row("the same at four times the area", ratio, "x", "<= 1.1", ratio <= 1.1),
    ]


if __name__ == "__main__":
    print_rows(measure())
