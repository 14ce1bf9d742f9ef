"""Every export of a million nuclei on one core: seconds, and peak memory, also over that of a tenth of the nuclei.

Seconds are of CPU time, of all threads together. The nuclei are those of `benchmarks.stitching`, with 25 vertices
and the probabilities of five classes. One row is for QuPath's file of a tenth of them with 100 features. `--full`
adds ten million nuclei.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.child import peak_mib
from benchmarks.table import NO_TARGET, Row, print_rows

TENTH, MILLION, TEN_MILLION = 1, 11, 110
"""Squares of 92,000 nuclei."""
SQUARE, SMALL_SQUARE = 4, 1
"""Regions of 5,700 nuclei along the edge of a square."""
FEATURES = 100
MOST_S, MOST_TIMES, MOST_MIB = 60.0, 3.0, 400.0
# These have to be within three times of QuPath's file.
NEAR_QUPATH = ("annotationstore", "dicom", "gpkg")


def write(folder: Path, squares: int, features: int = 0, square: int = SQUARE) -> None:
    """The same square of stitched nuclei again and again, side by side."""
    from benchmarks.features import white_slide, write_store
    from benchmarks.stitching import GEOMETRY, REGION, regions
    from wsi_nuc.stitch import stitch

    stitched, columns = list(stitch(regions(square, square), GEOMETRY)), math.ceil(math.sqrt(squares))
    shifts = [np.array(divmod(i, columns)[::-1]) * float(square * REGION) for i in range(squares)]
    tables = (
        replace(table, xy=table.xy + shift, prompt_xy=table.prompt_xy + shift)
        for shift in shifts
        for table in stitched
    )
    # A slide that is as large would take longer than its nuclei, and no export reads pixels.
    slide = white_slide(folder / "x.zarr", REGION)
    write_store(folder / "out" / "x.zarr", slide, columns * square, tables, features)


def export(folder: Path, *formats: str) -> None:
    """Prints a line of JSON per format: name, nuclei, seconds and the peak of this process."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from wsi_nuc.exporting import export as exporting

    for name in formats:
        # Ten million nuclei are up to 10 GB, so no two files of them are kept.
        with TemporaryDirectory(dir=folder) as place:
            begin = time.process_time()
            nuclei = exporting.export(folder / "out" / "x.zarr", name, Path(place) / "nuclei")
            print(json.dumps([name, nuclei, time.process_time() - begin, peak_mib()]), flush=True)


def child(deed: str, folder: str, *words: object) -> list[tuple[str, int, float, float]]:
    command = [sys.executable, "-m", "benchmarks.exports", deed, folder, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def exported(
    squares: int, formats: Sequence[str], small: bool, features: int = 0
) -> dict[str, tuple[float, float]]:
    """Seconds per million nuclei and MiB of each format, each in a process of its own unless `small`."""
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as folder:
        child("write", folder, squares, features, SMALL_SQUARE if small else SQUARE)
        at_once = [formats] if small else [[name] for name in formats]
        lines = [line for names in at_once for line in child("export", folder, *names)]
    return {name: (1e6 * seconds / nuclei, mib) for name, nuclei, seconds, mib in lines}


def measure(small: bool = False, full: bool = False) -> list[Row]:
    from wsi_nuc.exporting.registry import FORMATS

    formats, rows = list(FORMATS), []
    few = exported(TENTH, formats, small)
    many = few if small else exported(MILLION, formats, small)
    for name, (seconds, mib) in many.items():
        most = MOST_S if name == "qupath" else MOST_TIMES * many["qupath"][0] if name in NEAR_QUPATH else None
        wanted = NO_TARGET if most is None else f"<= {most:.3g}"
        rows.append(Row(name, seconds, "s/million", wanted, most is None or seconds <= most))
        limit, within = (f"<= {MOST_MIB:g}", mib <= MOST_MIB) if most is not None else (NO_TARGET, True)
        rows.append(Row(f"{name}, peak memory", mib, "MiB", limit, within))
        rows.append(Row(f"{name}, over that of a tenth", mib / few[name][1], "x"))
    seconds, mib = exported(TENTH, ["qupath"], small, FEATURES)["qupath"]
    rows.append(Row(f"qupath with {FEATURES} features", seconds, "s/million", f"<= {MOST_S:g}", seconds <= MOST_S))
    rows.append(Row(f"qupath with {FEATURES} features, peak memory", mib, "MiB", "<= 400", mib <= MOST_MIB))
    for name, (seconds, mib) in (exported(TEN_MILLION, formats, small) if full else {}).items():
        rows.append(Row(f"{name}, ten million", seconds, "s/million"))
        rows.append(Row(f"{name}, ten million, peak memory", mib, "MiB"))
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    elif sys.argv[1:2] == ["export"]:
        export(Path(sys.argv[2]), *sys.argv[3:])
    else:
        print_rows(measure(full="--full" in sys.argv))
