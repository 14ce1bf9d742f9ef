"""How far a nucleus is from the border of the analysed area, and its counts of neighbours corrected for that.

The area is the searched tissue on the slide, less the places that could not be decoded or computed. Distances are
exact, from the polygons. The share of a disc that lies in the area is counted on cells of a micron, in squares of
the slide that are always the same. So neither depends on which nuclei are measured together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from scipy.spatial import cKDTree

from wsi_nuc.features.job import GroupJob
from wsi_nuc.features.neighbourhood import Scene
from wsi_nuc.features.registry import BORDER, LEAST_SHARE, RADII_UM, REACH_UM
from wsi_nuc.features.squares import rows_by_square
from wsi_nuc.rings import Rings
from wsi_nuc.store.reading import meet
from wsi_nuc.tissue.area import inside
from wsi_nuc.types import Bool, Box, Float64, Int64

SQUARE_UM = 512
Columns = dict[str, Float64]


@dataclass(frozen=True)
class Analysed:
    """The area that was analysed, in level-0 pixels."""

    tissue: Any
    """Shapely polygons that were searched."""
    lost: Float64
    """N x 4: x0, y0, x1, y1 of the places without a result."""
    slide: Box
    mpp: float

    @classmethod
    def near(cls, box: Float64, tissue: Any, job: GroupJob, slide: Box) -> Analysed | None:
        """What matters to the nuclei of a job, which lie in the box x0, y0, x1, y1 (level-0 pixels).

        None where there is no tissue on the whole slide, so that nothing is known of the area.
        """
        if not len(tissue):
            return None
        reach = REACH_UM / job.mpp
        around = (box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach)
        kept = meet(shapely.bounds(tissue).reshape(-1, 4), around)
        return cls(tissue[kept], np.array(job.lost_l0, np.float64).reshape(-1, 4), slide, job.mpp)

    def holds(self, xy_l0: Float64) -> Bool:
        """N: whether each point lies in the area."""
        x, y = xy_l0.T
        held = inside(self.tissue, xy_l0) & (x >= 0) & (y >= 0) & (x <= self.slide.x1) & (y <= self.slide.y1)
        if len(self.lost):
            lost = shapely.STRtree(shapely.box(*self.lost.T))
            held[lost.query(shapely.points(xy_l0), predicate="intersects")[0]] = False
        return np.asarray(held, np.bool_)

    def to_border(self, xy_l0: Float64) -> Float64:
        """N, in um: the distance of points of the area to its border, `REACH_UM` where that is farther away.

        Borders of tissue, slide and lost places count alike: from within the area, those that are not the area's
        own lie behind one that is.
        """
        corners, ring = shapely.get_coordinates(self._rings, return_index=True)
        sides = np.stack([corners[:-1], corners[1:]], axis=1)[ring[:-1] == ring[1:]]
        low, high = xy_l0.min(axis=0) - REACH_UM / self.mpp, xy_l0.max(axis=0) + REACH_UM / self.mpp
        close = ((sides.max(axis=1) >= low) & (sides.min(axis=1) <= high)).all(axis=1)
        out = np.full(len(xy_l0), REACH_UM)
        (point, _), distance = shapely.STRtree(shapely.linestrings(sides[close])).query_nearest(
            shapely.points(xy_l0), max_distance=REACH_UM / self.mpp, return_distance=True, all_matches=False
        )
        out[point] = np.minimum(distance * self.mpp, REACH_UM)
        return out

    @cached_property
    def _rings(self) -> Any:
        boxes = np.vstack([self.lost, self._slide])
        return shapely.get_rings(np.concatenate([self.tissue, shapely.box(*boxes.T)]))

    @cached_property
    def _tissue_um(self) -> tuple[Rings, Int64, Float64]:
        """All rings of the tissue, the polygon of each, and the boxes around them."""
        rings, polygon = shapely.get_rings(self.tissue, return_index=True)
        outlines = Rings.of_polygons(shapely.polygons(rings))
        outlines = Rings(outlines.xy * self.mpp, outlines.offsets)
        return outlines, polygon, outlines.bounds()

    def cells(self, box: Box) -> Bool:
        """H x W: which cells of a square micron have their middle in the area. `box`: in um."""
        rings, polygon, bounds = self._tissue_um
        near = np.flatnonzero(meet(bounds, (box.x0, box.y0, box.x1, box.y1)))
        searched = np.zeros(box.height * box.width, np.bool_)
        searched[rings.select(near).covered(box, polygon[near])[0]] = True
        on_slide = _span(self._slide, box, self.mpp)
        out = np.zeros((box.height, box.width), np.bool_)
        out[on_slide] = searched.reshape(out.shape)[on_slide]
        for lost in self.lost:
            out[_span(lost, box, self.mpp)] = False
        return out

    @property
    def _slide(self) -> Float64:
        return np.array([self.slide.x0, self.slide.y0, self.slide.x1, self.slide.y1], np.float64)


def _span(box_l0: Any, box: Box, mpp: float) -> tuple[slice, slice]:
    """The rows and columns of cells of `box` (um) whose middle lies in `box_l0`."""
    x0, y0, x1, y1 = np.ceil(box_l0 * mpp - 0.5).astype(int).tolist()
    return (
        slice(max(0, y0 - box.y0), max(0, y1 - box.y0)),
        slice(max(0, x0 - box.x0), max(0, x1 - box.x0)),
    )


def border_features(scene: Scene, area: Analysed | None, counts: Columns) -> Columns:
    """Column name -> one value for each of the scene's own rows.

    `area`: None where nothing is known of it. `counts`: has the raw counts of neighbours.
    """
    if area is None:
        return {column.name: np.full(scene.own, np.nan) for column in BORDER}
    xy, held = scene.xy_um[: scene.own], area.holds(scene.xy_um / area.mpp)
    own_held = held[: scene.own]
    # In the digits that a store keeps, so that the flag says what the distance says.
    distance = np.zeros(scene.own, np.float32)
    if own_held.any():
        distance[own_held] = area.to_border(xy[own_held] / area.mpp)
    columns = {"border_um": distance.astype(np.float64), "near_border_50um": (distance < 50).astype(np.float64)}
    shares = {radius: np.ones(scene.own) for radius in RADII_UM}
    near = np.flatnonzero(distance < max(RADII_UM))
    for rows in rows_by_square(np.floor(xy / SQUARE_UM), near):
        counted = _shares(xy[rows], area)
        for radius, share in shares.items():
            # One that is farther away is whole, whatever the cells at its rim say.
            share[rows] = np.where(distance[rows] < radius, counted[radius], 1.0)
    outside = cKDTree(scene.xy_um[~held])
    for radius, share in shares.items():
        neighbours = counts[f"count_{radius}um"].copy()
        # A nucleus outside of the area is a neighbour of nobody, and not its own either.
        strangers = outside.query_ball_point(xy[near], radius, return_length=True) - ~own_held[near]
        neighbours[near] -= strangers
        columns[f"inside_{radius}um"] = share
        columns[f"count_{radius}um_corrected"] = neighbours / np.maximum(share, LEAST_SHARE)
    return columns


def _shares(xy_um: Float64, area: Analysed) -> dict[int, Float64]:
    """For each radius, N: the share of the cells within it that lie in the area. All points lie in one square.

    The cells of a row of the disc are one difference of the sums along the row.
    """
    reach = max(RADII_UM)
    x0, y0 = (int(v) * SQUARE_UM for v in np.floor(xy_um[0] / SQUARE_UM))
    box = Box(x0, y0, x0 + SQUARE_UM, y0 + SQUARE_UM).grow(reach)
    sums = np.zeros((box.height, box.width + 1), np.int32)
    np.cumsum(area.cells(box), axis=1, out=sums[:, 1:])
    column, row = np.floor(xy_um).astype(np.int64).T - [[box.x0], [box.y0]]
    middle, flat = row * sums.shape[1] + column, sums.ravel()
    out = {}
    for radius in RADII_UM:
        down = np.arange(-radius, radius + 1)
        half = np.floor(np.sqrt(radius**2 - down**2)).astype(np.int64)
        line = down * sums.shape[1]
        right, left = (flat[middle[:, None] + ends].sum(axis=1) for ends in (line + half + 1, line - half))
        out[radius] = (right - left) / (2 * half + 1).sum()
    return out
