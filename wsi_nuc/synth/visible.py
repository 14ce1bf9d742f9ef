"""From overlapping candidates to the disjoint outlines that are drawn: the truth.

Local by construction: a candidate's fate depends on candidates that touch it and on those that touch these,
so any box that is grown by `HALO_UM` settles every nucleus whose centre lies in it, the same in every tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.synth.anatomy import Anatomy, BoxUm
from wsi_nuc.synth.nuclei import REACH_UM, Candidates, candidates
from wsi_nuc.types import Bool, Float64, Int64

HALO_UM = 4 * REACH_UM
# A nucleus of which less than this stays visible is left out of image and truth alike.
_LEAST_VISIBLE = 0.45
_GRID_PER_PX = 64

Polygons = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Visible:
    """`polygon` N shapely polygons in level-0 px, disjoint; `origin` the candidates that they come from."""

    polygon: Polygons
    origin: Candidates

    def __len__(self) -> int:
        return len(self.polygon)

    def select(self, rows: Bool | Int64) -> Visible:
        return Visible(self.polygon[rows], self.origin.select(rows))


def visible_nuclei(anatomy: Anatomy, box_um: BoxUm) -> Visible:
    """Every drawn nucleus whose candidate centre lies in the box."""
    x0, y0, x1, y1 = box_um
    found = candidates(anatomy, (x0 - HALO_UM, y0 - HALO_UM, x1 + HALO_UM, y1 + HALO_UM))
    mpp = anatomy.spec.mpp
    polygon = shapely.polygons(np.round(found.outlines_um() * (_GRID_PER_PX / mpp)) / _GRID_PER_PX)
    low, high = shapely.bounds(polygon).reshape(-1, 2, 2).swapaxes(0, 1)
    size_l0 = np.array([anatomy.spec.size, anatomy.spec.height_px])
    whole = (low >= 0).all(1) & (high <= size_l0).all(1) & shapely.is_valid(polygon)
    found, polygon = found.select(whole), polygon[whole]
    polygon, shown = _uncover(polygon, found.lots[:, 3])
    x, y = found.xy_um.T
    return Visible(polygon, found).select(shown & (x >= x0) & (x < x1) & (y >= y0) & (y < y1))


def _uncover(polygon: Polygons, height: Float64) -> tuple[Polygons, Bool]:
    """What can be seen of each polygon, the higher one in front, and whether that is enough."""
    area = shapely.area(polygon)
    below, above = shapely.STRtree(polygon).query(polygon, predicate="intersects")
    lower = height[below] < height[above]
    below, above = below[lower], above[lower]
    covered = np.bincount(
        below, shapely.area(shapely.intersection(polygon[below], polygon[above])), minlength=len(polygon)
    )
    # Judged against all candidates, dropped ones too: otherwise one drop could travel across the slide.
    shown = covered <= (1 - _LEAST_VISIBLE) * area
    cutting = shown[below] & shown[above]
    result = polygon.copy()
    for row in np.unique(below[cutting]):
        front = polygon[above[cutting & (below == row)]]
        rest = _largest(shapely.difference(polygon[row], shapely.union_all(front)))
        result[row] = rest
        shown[row] = rest.area >= _LEAST_VISIBLE * area[row] and not rest.interiors and rest.is_valid
    return result, shown


def _largest(shape: Any) -> Any:
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area, default=shapely.Polygon())
