"""The grid of tiles that a result was computed on: as its manifest says, or, in older stores, from its rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wsi_nuc.store.manifest import Json
from wsi_nuc.store.reading import NucleiFile
from wsi_nuc.store.tables import to_numpy
from wsi_nuc.types import Float64, Int64

# Of the slide's size and the tiles' edges, which are products of floating point.
ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class CoreGrid:
    """Cores of tiles, row by row from the corner of the slide."""

    edge_l0: float
    """Edge of a core in level-0 pixels, to a fraction of a pixel where there are many nuclei."""
    columns: int
    rows: int
    width: int
    """Of the slide, in level-0 pixels."""
    height: int

    def boxes_l0(self, tiles: Int64 | None = None) -> Float64:
        """N x 4: x0, y0, x1, y1 of the cores of these tiles, or of all."""
        tiles = np.arange(self.columns * self.rows) if tiles is None else tiles
        low = np.column_stack([tiles % self.columns, tiles // self.columns]) * self.edge_l0
        return np.hstack([low, np.minimum(low + self.edge_l0, [self.width, self.height])])


def core_grid(file: NucleiFile, manifest: Json) -> CoreGrid | None:
    """The grid that the manifest states. Without it, the one that fits to the tile of every nucleus within a core;
    None where none fits, or several."""
    width, height = int(manifest["slide"]["width_px"]), int(manifest["slide"]["height_px"])
    stated = manifest.get("run", {}).get("tile_l0")
    if isinstance(stated, int | float) and math.isfinite(stated) and stated > 0:
        return CoreGrid(float(stated), math.ceil(width / stated), math.ceil(height / stated), width, height)
    total = int(manifest["tiles"].get("total", 0))
    if total <= 1 or not file.rows:
        return None
    tiles, boxes = _extents(file)
    fits = []
    for columns in (n for n in range(1, total + 1) if total % n == 0):
        rows = total // columns
        low, high = _by_size(width, columns), _by_size(height, rows)
        least, most = max(low[0], high[0]), min(low[1], high[1])
        if least > most or (len(tiles) and int(tiles.max()) >= total):
            continue
        column, row = tiles % columns, tiles // columns
        least = max([least, *(boxes[:, 2] / (column + 1)), *(boxes[:, 3] / (row + 1))])
        for index, near in ((column, boxes[:, 0]), (row, boxes[:, 1])):
            later = index > 0
            most = min([most, *(near[later] / index[later])])
        if least <= most * (1 + ROUNDING):
            whole = math.ceil(least)
            edge = float(whole) if whole <= most else (least + min(most, 2 * least)) / 2
            fits.append(CoreGrid(edge, columns, rows, width, height))
    return fits[0] if len(fits) == 1 else None


def _by_size(side: int, count: int) -> tuple[float, float]:
    """From where to where the edge is if `count` tiles cover `side`."""
    return side / count * (1 - ROUNDING), side / (count - 1) * (1 + ROUNDING) if count > 1 else math.inf


def _extents(file: NucleiFile) -> tuple[Int64, Float64]:
    """The tiles that have nuclei within their core, and the box of those nuclei."""
    seen: dict[int, Float64] = {}
    for group in range(file.groups):
        flat = file.table(group, ["tile", "seam", "bbox"]).combine_chunks().flatten()
        names = ("tile", "seam", "bbox.xmin", "bbox.ymin", "bbox.xmax", "bbox.ymax")
        tile, seam, *sides = (to_numpy(flat.column(name).combine_chunks()) for name in names)
        inside = np.flatnonzero(~seam)
        if not len(inside):
            continue
        order = inside[np.argsort(tile[inside], kind="stable")]
        known, starts = np.unique(tile[order], return_index=True)
        boxes = np.column_stack([side[order] for side in sides]).astype(np.float64)
        low = np.minimum.reduceat(boxes[:, :2], starts, axis=0)
        high = np.maximum.reduceat(boxes[:, 2:], starts, axis=0)
        for at, number in enumerate(known.tolist()):
            box = np.concatenate([low[at], high[at]])
            if number in seen:
                box = np.concatenate(
                    [np.minimum(seen[number][:2], low[at]), np.maximum(seen[number][2:], high[at])]
                )
            seen[number] = box
    return np.array(list(seen), np.int64), np.array(list(seen.values()), np.float64).reshape(-1, 4)
