"""Counting: 1,000 drawn regions, and the cells of a grid, over a store of 10^6 nuclei.

The regions have 100 corners each and overlap, so that a nucleus lies in two of them on average. The tissue has
5,000 corners and a hole. Nuclei lie in the order of a run, in squares of 4096 px. Seconds are CPU time of the one
thread.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import shapely

from benchmarks.geoparquet import CLASSES, MPP, nuclei
from benchmarks.table import Row, print_rows
from wsi_nuc.counting.count import Question, count
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store import layout
from wsi_nuc.store.commit import Staging, publish
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import Accounting, Origin, build, identity_key
from wsi_nuc.store.nuclei_columns import NucleiWriter
from wsi_nuc.store.tissue import write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import Float64, TileCounts

PITCH_PX, BLOCK_PX, AT_ONCE = 40, 4096, 50_000


def centres(edge: int) -> Float64:
    """`edge` x `edge` places on a square, sorted as the rows of a result are."""
    row, column = np.divmod(np.arange(edge * edge), edge)
    xy = (np.column_stack([column, row]) + 0.5) * PITCH_PX
    block = xy // BLOCK_PX
    return xy[np.lexsort((xy[:, 0], xy[:, 1], block[:, 0], block[:, 1]))]


def wavy(x: float, y: float, radius: float, corners: int) -> Float64:
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    reach = radius * (1 + 0.1 * np.sin(9 * turn))
    return np.column_stack([x + reach * np.cos(turn), y + reach * np.sin(turn)])


def write_store(out: Path, edge: int) -> Path:
    """A published store with edge x edge nuclei."""
    places, size = centres(edge), edge * PITCH_PX
    facts = {"file": "x.svs", "sha256": "a" * 64, "mpp": MPP, "width_px": size, "height_px": size}
    origin = Origin(identity_key("a" * 64, "b" * 64, {}, {}), facts, {})
    middle = size / 2
    tissue = shapely.Polygon(wavy(middle, middle, 0.6 * size, 5000), [wavy(middle, middle, size / 20, 300)])
    tissue = shapely.intersection(tissue, shapely.box(0, 0, size, size))
    with Staging(made_folder(out), "x.svs.zarr") as staging:
        folder = ZarrFolder(staging.root)
        with NucleiWriter(folder, CLASSES, MPP, lambda tile: np.zeros((len(tile), 4))) as writer:
            for start in range(0, len(places), AT_ONCE):
                here = places[start : start + AT_ONCE]
                table = nuclei(len(here), seed=start)
                moved = table.xy + table.spread(here - table.prompt_xy)
                writer.append(NucleiTable(**{**_columns(table), "xy": moved, "prompt_xy": here}))
            summary = writer.finish(1.0)
        write_tissue(folder, shapely.MultiPolygon([tissue]), MPP)
        layout.seal(folder, origin.key, summary.class_figures)
        counts = {"nuclei": summary.nuclei}
        return publish(staging, origin, lambda r: build(r, origin, Accounting(TileCounts()), counts, {})).path


def _columns(table: NucleiTable) -> dict[str, object]:
    return {name: getattr(table, name) for name in table.__dataclass_fields__}


def write_regions(path: Path, number: int, size: float) -> Path:
    rng = np.random.default_rng(0)
    radius = np.sqrt(2 * size**2 / number / np.pi)
    features = []
    for i, (x, y) in enumerate(rng.uniform(radius, size - radius, (number, 2)).tolist()):
        ring = wavy(x, y, radius, 100).tolist()
        shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        features.append({"type": "Feature", "geometry": shape, "properties": {"name": f"region {i}"}})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def seconds(store: Path, question: Question) -> tuple[float, int]:
    """And how many nuclei the rows hold in all."""
    start = time.process_time()
    counted = count(store, question)
    return time.process_time() - start, sum(row["nuclei"] for row in counted.rows)


def measure(small: bool = False) -> list[Row]:
    edge, number = (150, 40) if small else (1000, 1000)
    with tempfile.TemporaryDirectory(prefix="wsi-nuc-bench-") as folder:
        store = write_store(Path(folder), edge)
        regions = write_regions(Path(folder, "regions.geojson"), number, edge * PITCH_PX)
        of_regions, held = seconds(store, Question(regions=regions))
        of_cells, once = seconds(store, Question(grid_um=100.0))
    return [
        Row(f"count in {number:,} regions, {edge**2:,} nuclei", of_regions, "s", "<= 10", of_regions <= 10),
        Row("regions per nucleus", held / edge**2, "x", "> 1", held > edge**2, always=True),
        Row("count on a grid of 100 um, the same nuclei", of_cells, "s", "<= 10", of_cells <= 10),
        Row("cells per nucleus", once / edge**2, "x", "= 1", once == edge**2, always=True),
    ]


if __name__ == "__main__":
    print_rows(measure())
