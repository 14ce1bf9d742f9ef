"""GeoParquet of 10^6 nuclei: this package's writer against `GeoDataFrame.to_parquet` for the same rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, interleaved, print_rows
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store.geoparquet import GeoParquetFile
from wsi_nuc.store.nuclei_columns import DICTIONARIES, ROW_GROUP_ROWS, Rows, nuclei_batch, nuclei_schema
from wsi_nuc.store.place import open_folder

CLASSES = ("tumour", "stroma", "immune", "epithelial", "necrotic")
MPP = 0.25


def nuclei(count: int, seed: int = 0) -> NucleiTable:
    """Rings of 18 to 32 (mean 25) vertices on the half-pixel grid that contours of masks lie on."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(18, 33, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    row = np.repeat(np.arange(count), lengths)
    angle = 2 * np.pi * (np.arange(offsets[-1]) - offsets[row]) / lengths[row]
    # Neighbouring rows lie beside each other, as the stitched order has them.
    centre = np.column_stack([np.arange(count) % 4096 * 24, np.arange(count) // 4096 * 24]) + rng.integers(
        0, 12, (count, 2)
    )
    direction = np.column_stack([np.cos(angle), np.sin(angle)])
    xy = np.round(2 * (centre[row] + rng.uniform(10, 20, count)[row, None] * direction)) / 2
    probs = rng.dirichlet(np.ones(len(CLASSES)), count).astype(np.float32)
    score = rng.random(count).astype(np.float32)
    tile = (centre[:, 1] // 1024 * 100 + centre[:, 0] // 1024).astype(np.int64)
    return NucleiTable(xy, offsets, centre.astype(np.float64), score, score[::-1].copy(), score, probs, tile)


def derived(table: NucleiTable) -> list[Rows]:
    """The row groups with area and centre, which the frame that geopandas gets has as columns, too."""
    groups = []
    for start in range(0, len(table), ROW_GROUP_ROWS):
        part = table.between(start, min(start + ROW_GROUP_ROWS, len(table)))
        groups.append(Rows.of(part, start + 1, part.bounds(), np.zeros(len(part), np.bool_)))
    return groups


def write_ours(groups: Iterable[Rows], path: Path) -> None:
    """Rings and columns to a file; boxes are computed again, since `to_parquet` computes them, too."""
    path.unlink(missing_ok=True)
    with GeoParquetFile(
        open_folder(path.parent) / path.name, nuclei_schema(len(CLASSES)), ["Polygon"], DICTIONARIES
    ) as file:
        for group in groups:
            file.write(nuclei_batch(group, CLASSES, MPP * MPP), group.table.bounds())


def as_geodataframe(path: Path) -> Any:
    """The same rows as geometry objects. The time for making them is not counted against geopandas."""
    import geopandas

    return geopandas.read_parquet(path)


def measure(small: bool = False) -> list[Row]:
    count = 20_000 if small else 1_000_000
    table = nuclei(count)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours.parquet"), Path(folder, "theirs.parquet")
        groups = derived(table)
        write_ours(groups, ours)
        frame = as_geodataframe(ours)

        def write_theirs() -> None:
            frame.to_parquet(theirs, compression="zstd", write_covering_bbox=True)

        ours_s, ours_all_s, theirs_s = interleaved(
            lambda: write_ours(groups, ours), lambda: write_ours(derived(table), ours), write_theirs
        )
        size = ours.stat().st_size / theirs.stat().st_size
    ratio = theirs_s / ours_s
    return [
        Row(f"GeoParquet of {count:,} nuclei, geopandas / ours", ratio, "x", ">= 2", ratio >= 2),
        Row("the same, area and centre computed by us alone", theirs_s / ours_all_s, "x"),
        Row("GeoParquet writing, all computed", count / ours_all_s / 1e3, "k rows/s"),
        Row("GeoParquet size, ours / geopandas", size, "x", "<= 1.1", size <= 1.1),
    ]


if __name__ == "__main__":
    print_rows(measure())
