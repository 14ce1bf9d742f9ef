"""Masks to valid polygons, all masks of a call at once and each as if it were alone.

Of every mask the largest 4-connected part counts, its holes are filled, and its outline comes averaged to few
vertices (`outlines.py`). Averaging cuts corners, so each ring is scaled about its centre until it
encloses the mask's own area: no size is biased. Rings that see every edge from their centre are simple by
construction; only the others are handed to shapely, and repaired where needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from wsi_nuc.inference.outlines import Outlines, outlines
from wsi_nuc.rings import Rings, largest_polygons
from wsi_nuc.types import Bool, Float64, Int64, MaskCrops, UInt8

MIN_AREA_PX = 12  # less is no nucleus at any resolution in use; the outline's half pixel would matter too
CHUNK = 1024  # masks whose outlines stay in the cache together


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
    found, parted = _one_ring_per_mask(mask)
    rings, simple = _scaled(found)
    rings, area_px, crossed = _mended(rings, found.area_px.astype(np.float64), simple)
    large = np.flatnonzero(area_px >= MIN_AREA_PX)
    if len(large) < len(area_px):
        rings = rings.select(large)
    kept, repaired = np.zeros(len(mask), np.bool_), parted
    repaired[found.mask[crossed]] = True
    kept[found.mask[large]] = True
    rings = replace(rings, xy=rings.xy + rings.spread(origin_tile[found.mask[large]]))
    return Traced(rings, kept, repaired & kept)


def _one_ring_per_mask(mask: UInt8) -> tuple[Outlines, Bool]:
    """One outline a mask that is large enough, and which masks had to be parted at a corner."""
    parted = np.zeros(len(mask), np.bool_)
    found = outlines(mask)
    parted[found.mask[found.pinched]] = True
    if parted.any():
        # OpenCV's walk is 8-connected; where that makes a difference, only the largest 4-connected part stays.
        mask = mask.copy()
        mask[parted] = _largest_parts(mask[parted])
        found = outlines(mask)
    best = np.lexsort((np.arange(len(found)), -found.area_px, found.mask))
    best = best[np.r_[True, np.diff(found.mask[best]) > 0]] if len(best) else best
    return found.select(best[found.area_px[best] >= MIN_AREA_PX]), parted


def _largest_parts(mask: UInt8) -> UInt8:
    """The largest 4-connected part of each mask, the first one in reading order at a tie."""
    kept = np.zeros_like(mask)
    for image, out in zip(mask, kept, strict=True):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=4, ltype=cv2.CV_32S)
        out[...] = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return kept


def _scaled(found: Outlines) -> tuple[Rings, Bool]:
    """Each ring grown or shrunk about its middle to its mask's area, and whether it is certainly simple.

    Certain are rings that turn once and always anticlockwise about their middle.
    """
    if not len(found):
        return Rings.of([]), np.zeros(0, np.bool_)
    starts = found.starts
    middle = np.add.reduceat(found.xy, starts, axis=0) / found.ring_lengths[:, None]
    edges = found.edges(middle)
    area = edges.sum(edges.cross) / 2
    # A sliver whose averaged ring encloses next to nothing has no meaningful scale.
    factor = np.sqrt(np.where(area > 0.25 * found.area_px, found.area_px / np.maximum(area, 1e-9), 1.0))
    above = edges.y >= 0
    before = np.concatenate([above[:1], above[:-1]])
    before[starts] = above[found.offsets[1:] - 1]
    turns = np.add.reduceat((above & ~before).astype(np.int64), starts)
    simple = (np.minimum.reduceat(edges.cross, starts) > 1e-9) & (turns == 1)
    spokes = np.stack([edges.x, edges.y], axis=1)
    xy = spokes * found.spread(factor)[:, None] + found.spread(middle)
    return Rings(xy, found.offsets), simple


def _mended(rings: Rings, area_px: Float64, simple: Bool) -> tuple[Rings, Float64, Bool]:
    """All rings valid with their areas, and which of them were not."""
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
    # Parts within parts are left out: to take them would change results.
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    (largest,) = largest_polygons([shapely.geometrycollections(parts)])
    if largest is None:
        return np.asarray(ring[0] + [[0.0, 0.0], [1e-3, 0.0], [0.0, 1e-3]])  # too small to be kept
    outer = Rings.of_polygons(np.array([largest]))
    return outer.xy if outer.signed_areas()[0] > 0 else outer.xy[::-1].copy()
