"""What better outlines leave of the worse ones that they overlap."""

from __future__ import annotations

import numpy as np
import shapely

from wsi_nuc.rings import Geometries, Rings, largest_polygons
from wsi_nuc.stitch.conflicts import Overlaps
from wsi_nuc.types import Int64


def cut(rings: Rings, found: Overlaps) -> tuple[Int64, Rings]:
    """The worse rows of pairs that are both kept, and what is left of each. A row of which nothing is left is
    missing."""
    rows, start, count = np.unique(found.worse, return_index=True, return_counts=True)
    known = found.rest_row[start] >= 0
    simple = known & (count == 1)
    ready = found.rest.select(found.rest_row[start[simple]])
    others = np.flatnonzero(~simple)
    polygons = _mended(rings.select(rows[others]))
    begun = known[others]
    polygons[begun] = found.rest.select(found.rest_row[start[others[begun]]]).polygons()
    for turn in range(int(count.max(initial=0))):
        more = np.flatnonzero((count[others] > turn) & ~(begun & (turn == 0)))
        better = _mended(rings.select(found.better[start[others[more]] + turn]))
        polygons[more] = shapely.difference(polygons[more], better)
    polygons = largest_polygons(polygons)
    left = ~shapely.is_missing(polygons)
    rest = Rings.concat([ready, Rings.of_polygons(polygons[left])])
    return np.concatenate([rows[simple], rows[others[left]]]), rest


def _mended(rings: Rings) -> Geometries:
    polygons = rings.polygons()
    wrong = ~shapely.is_valid(polygons)
    polygons[wrong] = shapely.make_valid(polygons[wrong])
    return polygons
