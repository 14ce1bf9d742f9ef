"""Masks to valid polygons, all masks of a call at once and each as if it were alone.

The largest 4-connected part of each mask counts. Its holes are filled, and its outline is averaged to few vertices
(`outlines.py`). Averaging cuts corners, so each ring is then scaled about its centre until it encloses the area of
its mask, and no size is biased. A ring whose centre sees every edge is simple by construction. Only the other
rings are handed to shapely, and repaired where needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from wsi_nuc.inference.outlines import Outlines, outlines
from wsi_nuc.rings import Rings, largest_polygons
from wsi_nuc.types import Bool, Float64, Int64, MaskCrops, UInt8

MIN_AREA_PX = 12  # anything smaller is not a nucleus at any resolution in use
CHUNK = 1024  # as many masks as have outlines that stay in the cache together


@dataclass(frozen=True, slots=True)
class Traced:
    """What became of the masks."""

    rings_tile: Rings
    """Of the kept masks, in their order, anticlockwise as seen with y up."""
    kept: Bool
    """One flag per mask: False where it is empty or too small."""
    repaired: Bool
    """One flag per mask: its ring crossed itself, or the mask hung together by corners."""


def trace(masks: MaskCrops) -> Traced:
    """The polygon of each mask in tile pixels."""
    count = len(masks.mask)
    parts = [_trace(masks.mask[i : i + CHUNK], masks.origin_tile[i : i + CHUNK]) for i in range(0, count, CHUNK)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Traced(Rings.of([]), np.zeros(0, np.bool_), np.zeros(0, np.bool_))
    return Traced(
        Rings.concat([part.rings_tile for part in parts]),
        np.concatenate([part.kept for part in parts]),
        np.concatenate([part.repaired for part in parts]),
    )


def _trace(mask: UInt8, origin_tile: Int64) -> Traced:
    traced, parted = _one_ring_per_mask(mask)
    rings, simple = _scaled(traced)
    rings, area_px, crossed = _mended(rings, traced.area_px.astype(np.float64), simple)
    large = np.flatnonzero(area_px >= MIN_AREA_PX)
    if len(large) < len(area_px):
        rings = rings.select(large)
    kept, repaired = np.zeros(len(mask), np.bool_), parted
    repaired[traced.mask[crossed]] = True
    kept[traced.mask[large]] = True
    rings = replace(rings, xy=rings.xy + rings.spread(origin_tile[traced.mask[large]]))
    return Traced(rings, kept, repaired & kept)


def _one_ring_per_mask(mask: UInt8) -> tuple[Outlines, Bool]:
    """One outline for each mask that is large enough, and which masks had to be parted at a corner."""
    parted = np.zeros(len(mask), np.bool_)
    traced = outlines(mask)
    parted[traced.mask[traced.pinched]] = True
    if parted.any():
        # OpenCV's walk is 8-connected; where that makes a difference, only the largest 4-connected part stays.
        mask = mask.copy()
        mask[parted] = _largest_parts(mask[parted])
        traced = outlines(mask)
    best = np.lexsort((np.arange(len(traced)), -traced.area_px, traced.mask))
    best = best[np.r_[True, np.diff(traced.mask[best]) > 0]] if len(best) else best
    return traced.select(best[traced.area_px[best] >= MIN_AREA_PX]), parted


def _largest_parts(mask: UInt8) -> UInt8:
    """The largest 4-connected part of each mask, the first one in reading order at a tie."""
    kept = np.zeros_like(mask)
    for image, out in zip(mask, kept, strict=True):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=4, ltype=cv2.CV_32S)
        out[...] = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return kept


def _scaled(traced: Outlines) -> tuple[Rings, Bool]:
    """Each ring grown or shrunk about its middle to its mask's area, and whether it is certainly simple.

    A ring is certainly simple if it turns once, and always anticlockwise, about its middle.
    """
    if not len(traced):
        return Rings.of([]), np.zeros(0, np.bool_)
    starts = traced.starts
    middle = np.add.reduceat(traced.xy, starts, axis=0) / traced.ring_lengths[:, None]
    edges = traced.edges(middle)
    area = edges.sum(edges.cross) / 2
    # A sliver whose averaged ring encloses next to nothing has no meaningful scale.
    factor = np.sqrt(np.where(area > 0.25 * traced.area_px, traced.area_px / np.maximum(area, 1e-9), 1.0))
    above = edges.y >= 0
    before = np.concatenate([above[:1], above[:-1]])
    before[starts] = above[traced.offsets[1:] - 1]
    turns = np.add.reduceat((above & ~before).astype(np.int64), starts)
    simple = (np.minimum.reduceat(edges.cross, starts) > 1e-9) & (turns == 1)
    spokes = np.stack([edges.x, edges.y], axis=1)
    xy = spokes * traced.spread(factor)[:, None] + traced.spread(middle)
    return Rings(xy, traced.offsets), simple


def _mended(rings: Rings, area_px: Float64, simple: Bool) -> tuple[Rings, Float64, Bool]:
    """All rings, now valid, with their areas, and which of them were not valid before."""
    import shapely

    doubtful = np.flatnonzero(~simple)
    bad = doubtful[~shapely.is_valid(rings.select(doubtful).polygons())]
    crossed = np.zeros(len(simple), np.bool_)
    crossed[bad] = True
    if not len(bad):
        return rings, area_px, crossed
    mended = Rings.of([_repaired(rings.ring(i)) if crossed[i] else rings.ring(i) for i in range(len(rings))])
    return mended, np.where(crossed, mended.signed_areas(), area_px), crossed


def _repaired(ring: Float64) -> Float64:
    """Outline of the largest part of a ring that crosses itself, anticlockwise; a speck where nothing is left."""
    import shapely

    parts = shapely.get_parts(shapely.make_valid(shapely.polygons(ring)))
    # Parts within parts are left out. Results would change if they were not.
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    (largest,) = largest_polygons([shapely.geometrycollections(parts)])
    if largest is None:
        return np.asarray(ring[0] + [[0.0, 0.0], [1e-3, 0.0], [0.0, 1e-3]])  # too small to be kept
    outer = Rings.of_polygons(np.array([largest]))
    return outer.xy if outer.signed_areas()[0] > 0 else outer.xy[::-1].copy()
