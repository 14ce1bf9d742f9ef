"""Masks to valid polygons, all masks of a call at once and each as if it were alone.

Of every mask the largest 4-connected part counts, its holes are filled, and its outline comes averaged to few
vertices (`outlines.py`). Averaging cuts corners, so each ring is scaled about its centre until it
encloses the mask's own area: no size is biased. Rings that see every edge from their centre are simple by
construction; only the others are handed to shapely, and repaired where needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsi_nuc.inference.outlines import Outlines, offsets_of, outlines, take_rings
from wsi_nuc.types import Bool, Float64, Int64, MaskCrops, UInt8

MIN_AREA_PX = 12  # less is no nucleus at any resolution in use; the outline's half pixel would matter too
CHUNK = 1024  # masks whose outlines stay in the cache together


@dataclass(frozen=True, slots=True)
class Traced:
    """Rings of the kept masks, in their order, anticlockwise as seen with y up (positive shoelace area).

    `xy_tile` M x 2 and `offsets` as in TileNuclei; `kept`: bool, a flag for each mask (empty or too small: False);
    `repaired`: bool, a flag for each mask whose ring crossed itself or whose mask hung together by corners.
    """

    xy_tile: Float64
    offsets: Int64
    kept: Bool
    repaired: Bool


def trace(masks: MaskCrops) -> Traced:
    """The polygon of each mask in tile pixels."""
    count = len(masks.mask)
    parts = [_trace(masks.mask[i : i + CHUNK], masks.origin_tile[i : i + CHUNK]) for i in range(0, count, CHUNK)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Traced(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.bool_))
    return Traced(
        np.concatenate([part.xy_tile for part in parts]),
        offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
        np.concatenate([part.kept for part in parts]),
        np.concatenate([part.repaired for part in parts]),
    )


def _trace(mask: UInt8, origin_tile: Int64) -> Traced:
    found, parted = _one_ring_per_mask(mask)
    xy, simple = _scaled(found)
    xy, offsets, area_px, crossed = _mended(xy, found.offsets, found.area_px.astype(np.float64), simple)
    large = np.flatnonzero(area_px >= MIN_AREA_PX)
    if len(large) < len(area_px):
        xy, offsets = take_rings(xy, offsets, large)
    kept, repaired = np.zeros(len(mask), np.bool_), parted
    repaired[found.mask[crossed]] = True
    kept[found.mask[large]] = True
    xy += np.repeat(origin_tile[found.mask[large]], np.diff(offsets), axis=0)
    return Traced(xy, offsets, kept, repaired & kept)


def signed_areas(xy: Float64, offsets: Int64) -> Float64:
    """Shoelace area of each ring, positive where it runs anticlockwise as seen with y up."""
    if len(offsets) < 2:
        return np.zeros(0)
    # About a vertex of its own, a ring's area keeps its digits wherever the ring lies.
    cross = _cross(xy - np.repeat(xy[offsets[:-1]], np.diff(offsets), axis=0), offsets)
    return np.asarray(0.5 * np.add.reduceat(cross, offsets[:-1]))


def _cross(spokes: Float64, offsets: Int64) -> Float64:
    """Twice the signed area of the triangle over each edge."""
    x, y = spokes[:, 0], spokes[:, 1]
    after = np.arange(1, len(x) + 1)
    after[offsets[1:] - 1] = offsets[:-1]
    return np.asarray(x * y[after] - y * x[after])


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
    best = best[found.area_px[best] >= MIN_AREA_PX]
    xy, offsets = take_rings(found.xy, found.offsets, best)
    return Outlines(xy, offsets, found.mask[best], found.area_px[best], found.pinched[best]), parted


def _largest_parts(mask: UInt8) -> UInt8:
    """The largest 4-connected part of each mask, the first one in reading order at a tie."""
    kept = np.zeros_like(mask)
    for image, out in zip(mask, kept, strict=True):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=4, ltype=cv2.CV_32S)
        out[...] = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return kept


def _scaled(found: Outlines) -> tuple[Float64, Bool]:
    """Each ring grown or shrunk about its middle to its mask's area, and whether it is certainly simple.

    Certain are rings that turn once and always anticlockwise about their middle.
    """
    if not len(found):
        return found.xy, np.zeros(0, np.bool_)
    starts, lengths = found.offsets[:-1], np.diff(found.offsets)
    middle = np.repeat(np.add.reduceat(found.xy, starts, axis=0) / lengths[:, None], lengths, axis=0)
    spokes = found.xy - middle
    cross = _cross(spokes, found.offsets)
    area = 0.5 * np.add.reduceat(cross, starts)
    # A sliver whose averaged ring encloses next to nothing has no meaningful scale.
    factor = np.sqrt(np.where(area > 0.25 * found.area_px, found.area_px / np.maximum(area, 1e-9), 1.0))
    above = spokes[:, 1] >= 0
    before = np.concatenate([above[:1], above[:-1]])
    before[starts] = above[found.offsets[1:] - 1]
    turns = np.add.reduceat((above & ~before).astype(np.int64), starts)
    simple = (np.minimum.reduceat(cross, starts) > 1e-9) & (turns == 1)
    return spokes * np.repeat(factor, lengths)[:, None] + middle, simple


def _mended(xy: Float64, offsets: Int64, area_px: Float64, simple: Bool) -> tuple[Float64, Int64, Float64, Bool]:
    """All rings valid with their areas, and which of them were not."""
    bad = np.flatnonzero(~simple)
    bad = bad[~_valid(*take_rings(xy, offsets, bad))]
    crossed = np.zeros(len(simple), np.bool_)
    crossed[bad] = True
    if not len(bad):
        return xy, offsets, area_px, crossed
    rings = np.split(xy, offsets[1:-1])
    for i in bad:
        rings[i] = _repaired(rings[i])
    xy, offsets = np.concatenate(rings), offsets_of(np.fromiter(map(len, rings), np.int64, len(rings)))
    return xy, offsets, np.where(crossed, signed_areas(xy, offsets), area_px), crossed


def _valid(xy: Float64, offsets: Int64) -> Bool:
    import shapely

    if len(offsets) < 2:
        return np.zeros(0, np.bool_)
    rings = shapely.linearrings(xy, indices=np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))
    return np.asarray(shapely.is_valid(shapely.polygons(rings)))


def _repaired(ring: Float64) -> Float64:
    """Outline of the largest part of a ring that crosses itself, anticlockwise; a speck where nothing is left."""
    import shapely

    whole = shapely.make_valid(shapely.polygons(ring))
    parts = [p for p in shapely.get_parts(whole, return_index=False) if p.geom_type == "Polygon"]
    if not parts:
        return np.asarray(ring[0] + [[0.0, 0.0], [1e-3, 0.0], [0.0, 1e-3]])  # too small to be kept
    largest = max(parts, key=lambda part: float(part.area))
    outer = np.asarray(shapely.get_coordinates(largest.exterior))[:-1]
    return outer if signed_areas(outer, np.array([0, len(outer)]))[0] > 0 else outer[::-1].copy()
