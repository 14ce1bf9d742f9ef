"""Stitching: rate, growth with the number of nuclei, memory at 16 times the area, ratio to a whole-slide R-tree.

The slide is a lattice of jittered ellipses (25 vertices, 5,600 per mm2 at 0.25 um per pixel). It is cut into tiles
of 512 px with a margin of 12 px, so that about 10 % of the candidates are second views of a nucleus at a seam.
Half of those differ in outline and score, and 2 % of the nuclei have a second mask from their own tile. Rates are
per second of CPU time of the one thread, without the making of the candidates, best of a few runs. `--full` adds
the run of 10^7 nuclei (about two minutes).
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module

import numpy as np
import numpy.typing as npt

from benchmarks.child import peak_mib
from benchmarks.table import Row, interleaved, print_rows
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.stitch import RegionCandidates, StitchGeometry, stitch
from wsi_nuc.types import Float64, Int64

PITCH, CORE, MARGIN, REACH, REGION = 54, 512, 12.0, 80.0, 4096
GEOMETRY = StitchGeometry(region_l0=REGION, margin_l0=MARGIN, reach_l0=REACH, block_l0=REGION)
PER_REGION = (REGION / PITCH) ** 2
_ANGLES = np.linspace(0, 2 * np.pi, 25, endpoint=False)


def noise(key: npt.NDArray[np.uint64], salt: int) -> Float64:
    """Uniform 0..1, a pure function of key and salt, so that any region can be made alone."""
    mixed = (key + np.uint64(salt)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed >> np.uint64(11), np.float64) / 2**53


def regions(rows: int, columns: int) -> Iterator[RegionCandidates]:
    for row in range(rows):
        for column in range(columns):
            yield region(row, column, columns)


def region(row: int, column: int, columns: int) -> RegionCandidates:
    x0, y0 = column * REGION, row * REGION
    key, x, y = _lattice(x0, y0)
    nucleus, tile_x, tile_y, rival = _views(x, y)
    inside = (tile_x // (REGION // CORE) == column) & (tile_y // (REGION // CORE) == row)
    nucleus, tile_x, tile_y, rival = (side[inside] for side in (nucleus, tile_x, tile_y, rival))
    own = (x[nucleus] // CORE == tile_x) & (y[nucleus] // CORE == tile_y)
    tile = tile_y * columns * (REGION // CORE) + tile_x
    table = _table(key[nucleus], np.stack([x, y], 1)[nucleus], tile, ~own | rival)
    return RegionCandidates((x0, y0, x0 + REGION, y0 + REGION), table, own)


def _lattice(x0: int, y0: int) -> tuple[npt.NDArray[np.uint64], Float64, Float64]:
    """Key and centre of the nuclei in and around a region."""
    i = np.arange(math.floor(x0 / PITCH) - 2, math.ceil((x0 + REGION) / PITCH) + 2)
    j = np.arange(math.floor(y0 / PITCH) - 2, math.ceil((y0 + REGION) / PITCH) + 2)
    column, row = (side.ravel() for side in np.meshgrid(i, j))
    key = (column + 8 + (row + 8) * 2**24).astype(np.uint64) * np.uint64(64)
    x, y = (index * PITCH + PITCH * noise(key, salt) for index, salt in ((column, 1), (row, 2)))
    on_slide = (x >= 0) & (y >= 0)
    return key[on_slide], x[on_slide], y[on_slide]


def _views(x: Float64, y: Float64) -> tuple[Int64, Int64, Int64, npt.NDArray[np.bool_]]:
    """Nucleus, tile column, tile row and "is a second mask" of every candidate."""
    low_x, high_x = ((x - MARGIN) // CORE).astype(np.int64), ((x + MARGIN) // CORE).astype(np.int64)
    low_y, high_y = ((y - MARGIN) // CORE).astype(np.int64), ((y + MARGIN) // CORE).astype(np.int64)
    everyone = np.arange(len(x))
    wide, tall = np.flatnonzero(high_x != low_x), np.flatnonzero(high_y != low_y)
    corner, double = np.intersect1d(wide, tall), everyone[::50]
    nucleus = np.concatenate([everyone, wide, tall, corner, double])
    tile_x = np.concatenate([low_x, high_x[wide], low_x[tall], high_x[corner], low_x[double]])
    tile_y = np.concatenate([low_y, low_y[wide], high_y[tall], high_y[corner], low_y[double]])
    return nucleus, tile_x, tile_y, np.arange(len(nucleus)) >= len(nucleus) - len(double)


def ellipses(xy: Float64, long: Float64, short: Float64, turn: Float64) -> Rings:
    """Outlines of 25 vertices around N points, with their half axes and angles."""
    along, across = long[:, None] * np.cos(_ANGLES), short[:, None] * np.sin(_ANGLES)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    ring = np.stack([along * cos - across * sin, along * sin + across * cos], axis=2) + xy[:, None]
    return Rings(ring.reshape(-1, 2), np.arange(len(xy) + 1) * len(_ANGLES))


def _table(key: npt.NDArray[np.uint64], xy: Float64, tile: Int64, changed: npt.NDArray[np.bool_]) -> NucleiTable:
    long = 9 + 9 * noise(key, 3)
    short, turn = long * (0.6 + 0.4 * noise(key, 4)), np.pi * noise(key, 5)
    moved = (changed & (noise(key, 6) < 0.5))[:, None] * np.stack([noise(key, 7), noise(key, 8)], 1) * 3
    rings = ellipses(xy + moved, long, short, turn)
    score = (noise(key, 9) * 0.5 + moved[:, 0] / 12).astype(np.float32)
    return NucleiTable(
        xy=rings.xy,
        offsets=rings.offsets,
        prompt_xy=xy,
        score=score,
        prompt_score=score,
        predicted_iou=np.full(len(key), np.nan, np.float32),
        class_probs=np.full((len(key), 5), 0.2, np.float32),
        tile=tile,
    )


def stitch_all(rows: int, columns: int) -> tuple[int, float]:
    """How many nuclei stay, and the seconds of stitching alone, without the making of candidates."""
    making = 0.0

    def timed() -> Iterator[RegionCandidates]:
        nonlocal making
        for row in range(rows):
            for column in range(columns):
                begin = time.process_time()
                made = region(row, column, columns)
                making += time.process_time() - begin
                yield made

    start = time.process_time()
    nuclei = sum(len(table) for table in stitch(timed(), GEOMETRY))
    return nuclei, time.process_time() - start - making


def rate_and_slope(edges: Sequence[int]) -> list[Row]:
    """`edges`: for each slide, how many regions one of its sides has."""
    stitch_all(edges[0], edges[0])
    best = {edge: min((stitch_all(edge, edge) for _ in range(repeats)), key=lambda run: run[1] / run[0])
            for edge, repeats in zip(edges, (5, 3, 1), strict=False)}  # fmt: skip
    nuclei, seconds = best[edges[1]]
    few, many = best[edges[0]], best[edges[-1]]
    slope = math.log(many[1] / few[1]) / math.log(many[0] / few[0])
    return [
        Row(f"stitch {nuclei:,} nuclei", nuclei / seconds / 1e3, "k/s", ">= 300 k/s", nuclei / seconds >= 3e5),
        Row(f"cost from {few[0]:,} to {many[0]:,}", slope, "slope", "<= 1.05", slope <= 1.05),
    ]


def memory(edge: int) -> list[Row]:
    """Peak of a process of its own, with `edge` regions on a side and with four times as many.

    What grows is the frontier: the candidates near the lower rim of the row of regions, about 0.5 MiB per region
    of width.
    """
    small, large = (_peak_mib(side) for side in (edge, 4 * edge))
    what = f"peak memory at 16 x the area ({small:.0f} to {large:.0f} MiB)"
    return [Row(what, large / small, "x", "<= 1.10 x", large <= 1.10 * small)]


def _peak_mib(edge: int) -> float:
    call = [sys.executable, "-m", "benchmarks.stitching", "--peak", str(edge)]
    return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def repeated_tree(candidates: list[RegionCandidates]) -> int:
    """The idea of CellViT's clean-up: all outlines go into one R-tree, and of each group the largest stays.

    A group overlaps by more than 1 %. Passes are repeated until one finds no overlap, at most 20 times.
    """
    table = NucleiTable.concat([part.table for part in candidates])
    alive = list(range(len(table)))
    for _ in range(20):
        kept = _largest_of_groups(table, alive)
        if len(kept) == len(alive):
            break
        alive = kept
    return len(alive)


def _largest_of_groups(table: NucleiTable, alive: list[int]) -> list[int]:
    import shapely

    outlines = [shapely.Polygon(table.xy[table.offsets[row] : table.offsets[row + 1]]) for row in alive]
    tree, seen, kept = shapely.STRtree(outlines), np.zeros(len(alive), bool), []
    for row, outline in enumerate(outlines):
        if seen[row]:
            continue
        seen[row] = True
        group = [row]
        for neighbour in tree.query(outline).tolist():
            if not seen[neighbour]:
                common = outline.intersection(outlines[neighbour]).area
                if common > 0.01 * min(outline.area, outlines[neighbour].area):
                    group.append(neighbour)
                    seen[neighbour] = True
        kept.append(alive[max(group, key=lambda member: outlines[member].area)])
    return kept


def ratio(edge: int, rounds: int) -> list[Row]:
    slide = list(regions(edge, edge))
    ours, peers = interleaved(
        lambda: sum(len(table) for table in stitch(slide, GEOMETRY)), lambda: repeated_tree(slide), rounds=rounds
    )
    return [
        Row(
            "repeated whole-slide R-tree (CellViT's idea), time over ours",
            peers / ours,
            "x",
            ">= 50 x",
            peers >= 50 * ours,
        )
    ]


def measure(small: bool = False, full: bool = False) -> list[Row]:
    if small:
        return [*rate_and_slope((1, 2)), *memory(1), *ratio(1, rounds=1)]
    counts = (1e5, 1e6, 1e7) if full else (1e5, 1e6)
    edges = [round(math.sqrt(count / PER_REGION)) for count in counts]
    return [*rate_and_slope(edges), *memory(6), *ratio(2, rounds=5)]


def _peak(edge: int) -> None:
    """Stitches, and prints the peak of this process, which has the same libraries loaded as one that publishes."""
    import_module("wsi_nuc.run.session")
    for library in ("pyarrow.parquet", "shapely", "distributed"):
        import_module(library)
    for _ in stitch(regions(edge, edge), GEOMETRY):
        pass
    print(peak_mib())


if __name__ == "__main__":
    if "--peak" in sys.argv:
        _peak(int(sys.argv[-1]))
    else:
        print_rows(measure(full="--full" in sys.argv))
