"""What is left of outlines that lose what they share with others."""

from __future__ import annotations

import numpy as np
import shapely

from wsi_nuc.rings import Geometries, Rings, largest_polygons
from wsi_nuc.stitch.conflicts import Overlaps
from wsi_nuc.types import Int64


def cut(rings: Rings, shared: Overlaps, least: float) -> tuple[Int64, Rings]:
    """The losers of pairs that are both kept, and what is left of each; without those of which less than the share
    `least` is left."""
    order = np.argsort(shared.loser, kind="stable")
    owner, rest_row = shared.owner[order], shared.rest_row[order]
    rows, start, count = np.unique(shared.loser[order], return_index=True, return_counts=True)
    known = rest_row[start] >= 0
    simple = known & (count == 1)
    ready = shared.rest.select(rest_row[start[simple]])
    others = np.flatnonzero(~simple)
    whole = _mended(rings.select(rows[others]))
    polygons, begun = whole.copy(), known[others]
    polygons[begun] = shared.rest.select(rest_row[start[others[begun]]]).polygons()
    for turn in range(int(count.max(initial=0))):
        more = np.flatnonzero((count[others] > turn) & ~(begun & (turn == 0)))
        polygons[more] = shapely.difference(
            polygons[more], _mended(rings.select(owner[start[others[more]] + turn]))
        )
    polygons = largest_polygons(polygons)
    # A single owner, which is not a rival, leaves enough unless the rest falls apart.
    enough = ~shapely.is_missing(polygons) & (shapely.area(polygons) >= least * shapely.area(whole))
    rest = Rings.concat([ready, Rings.of_polygons(polygons[enough])])
    return np.concatenate([rows[simple], rows[others[enough]]]), rest


def _mended(rings: Rings) -> Geometries:
    polygons = rings.polygons()
    wrong = ~shapely.is_valid(polygons)
    polygons[wrong] = shapely.make_valid(polygons[wrong])
    return polygons
