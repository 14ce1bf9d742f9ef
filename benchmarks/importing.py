"""A million cells of QuPath's GeoJSON into a store: how fast, and whether memory grows with them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.child import peak_mib
from benchmarks.run_memory import TISSUE
from benchmarks.slides import synthetic
from benchmarks.table import Row, print_rows

FEW, MANY, CORNERS, EDGE = 62_500, 1_000_000, 20, 100_000
SMALL_FEW, SMALL_MANY, SMALL_EDGE = 500, 2_000, 4_096
NAMES = ("Tumor", "Stroma", "Immune cells")


def write_geojson(path: Path, cells: int, edge: int) -> None:
    """Wobbly circles anywhere on the slide, as QuPath writes detections."""
    dice = np.random.default_rng(cells)
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    with path.open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for i in range(cells):
            radius = dice.uniform(8, 16) * dice.uniform(0.9, 1.1, CORNERS)
            middle = dice.uniform(100, edge - 100, 2)
            ring = np.round(middle + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1), 2).tolist()
            properties = {"objectType": "detection", "classification": {"name": NAMES[i % len(NAMES)]}}
            shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
            feature = {"type": "Feature", "geometry": shape, "properties": properties}
            file.write(("," if i else "") + json.dumps(feature))
        file.write("]}")


def job(cells: Path, slide: Path, out: Path) -> dict[str, Any]:
    from wsi_nuc.importing.build import ImportRequest, import_cells

    started = time.perf_counter()
    done = import_cells(ImportRequest(cells, str(slide), out))
    seconds = time.perf_counter() - started
    return {"nuclei": done.published.manifest["counts"]["nuclei"], "seconds": seconds, "peak_mib": peak_mib()}


def _imported(cells: int, slide: Path, edge: int) -> dict[str, Any]:
    with TemporaryDirectory(prefix="wsi-nuc-bench-") as place:
        file = Path(place) / "cells.geojson"
        write_geojson(file, cells, edge)
        command = [sys.executable, "-m", "benchmarks.importing", "job", str(file), str(slide), f"{place}/out"]
        answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return answer


def measure(small: bool = False) -> list[Row]:
    fewer, cells, edge = (SMALL_FEW, SMALL_MANY, SMALL_EDGE) if small else (FEW, MANY, EDGE)
    slide = synthetic(f"sparse-{edge}.svs", edge, tissue=TISSUE)
    few, many = _imported(fewer, slide, edge), _imported(cells, slide, edge)
    ratio = many["peak_mib"] / few["peak_mib"]
    all_there = many["nuclei"] == cells
    return [
        Row(f"import of {cells:,} cells", many["nuclei"] / many["seconds"], "cells/s"),
        Row("of these in the store", many["nuclei"], "", f"{cells:,}", all_there, always=True),
        Row("its peak memory", many["peak_mib"], "MiB", "<= 2048", many["peak_mib"] <= 2048),
        Row(f"the same over that of {fewer:,} cells", ratio, "x", "<= 1.5", ratio <= 1.5),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        print(json.dumps(job(*map(Path, sys.argv[2:]))))
    else:
        print_rows(measure())
