"""What better outlines leave of the worse ones that they overlap."""

from __future__ import annotations

import numpy as np
import shapely

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Geometries, Rings, largest_polygons
from wsi_nuc.stitch.conflicts import Overlaps
from wsi_nuc.types import Int64


def cut(table: NucleiTable, found: Overlaps) -> tuple[Int64, Rings]:
    """The worse rows of pairs that are both kept, and what is left of each. A row of which nothing is left is
    missing."""
    rows, start, count = np.unique(found.worse, return_index=True, return_counts=True)
    known = (count == 1) & (found.rest_row[start] >= 0)
    ready = found.rest.select(found.rest_row[start[known]])
    polygons = _mended(table, rows[~known])
    start, count = start[~known], count[~known]
    for turn in range(int(count.max(initial=0))):
        more = np.flatnonzero(count > turn)
        polygons[more] = shapely.difference(polygons[more], _mended(table, found.better[start[more] + turn]))
    polygons = largest_polygons(polygons)
    left = ~shapely.is_missing(polygons)
    rings = [ready, Rings.of_polygons(polygons[left])]
    return np.concatenate([rows[known], rows[~known][left]]), Rings.concat(rings)


def _mended(table: NucleiTable, rows: Int64) -> Geometries:
    polygons = table.select(rows).polygons()
    wrong = ~shapely.is_valid(polygons)
    polygons[wrong] = shapely.make_valid(polygons[wrong])
    return polygons
