"""Of several points of one nucleus only the best stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from wsi_nuc.types import Float32, Int64, Prompts


def suppress_doubles(prompts: Prompts, radius_px: float) -> Prompts:
    """The points of each image in falling order of score, without doubles."""
    order = np.lexsort((prompts.xy_tile[:, 0], prompts.xy_tile[:, 1], -prompts.score, prompts.row))
    prompts = prompts.select(order)
    kept = [
        rows[point_nms(prompts.xy_tile[rows], radius_px)]
        for rows in (np.flatnonzero(prompts.row == row) for row in np.unique(prompts.row))
    ]
    return prompts.select(np.concatenate(kept) if kept else np.zeros(0, np.int64))


def point_nms(xy: Float32, radius_px: float) -> Int64:
    """Indices of the points that a greedy pass keeps. `xy` is in falling order of score.

    A point is kept if no kept point before it is within `radius_px`, so of a chain A - B - C both ends stay.
    """
    count = len(xy)
    if not count or radius_px <= 0:
        return np.arange(count)
    pairs = cKDTree(xy.astype(np.float64)).query_pairs(radius_px, output_type="ndarray")
    return greedy_survivors(count, pairs.min(1), pairs.max(1))


def greedy_survivors(count: int, better: Int64, worse: Int64) -> Int64:
    """Of `count` rows in falling order of score, those that a greedy pass keeps. Each pair of `better` and `worse`
    is of one nucleus."""
    undecided, kept = np.ones(count, np.bool_), np.zeros(count, np.bool_)
    while undecided.any():
        live = undecided[better] & undecided[worse]
        first = undecided & ~_marked(worse[live], count)
        kept |= first
        undecided &= ~(first | _marked(worse[first[better]], count))
    return np.flatnonzero(kept)


def _marked(index: Int64, count: int) -> npt.NDArray[np.bool_]:
    marked = np.zeros(count, np.bool_)
    marked[index] = True
    return marked
