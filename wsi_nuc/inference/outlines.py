"""From the masks of a call to valid outlines with few vertices, each as if its mask were alone.

The largest 4-connected part of each mask counts, with its holes filled (`trace`). Its outline runs along its true
pixel edges and is averaged to few vertices (`outlines`). Averaging cuts corners, so each ring is then scaled about
its centre until it encloses the area of its mask, and no size is biased. A ring whose centre sees every edge is
simple by construction. Only the other rings are handed to shapely, and repaired where needed.

OpenCV walks through the *centres* of the outermost pixels, which takes half a pixel off a nucleus all round. Here
the walk stands for the pixel edges ("cracks") between the mask and its background. Each pixel of the walk has zero
to four open sides, which follow from the step before it and the step after it alone. Sums over these sides, from
tables, give the exact area of the filled mask. Over short runs of the walk they give the mean of the crack
middles, which is one vertex per run.

All masks of a call are stacked into one tall image, so that Python calls OpenCV once per stack and not once per
mask. All sums are of integers, so the outline of a mask does not depend on the masks beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from wsi_nuc.rings import Rings, largest_polygons, offsets_of, spans
from wsi_nuc.types import Bool, Float64, Int64, MaskCrops, UInt8

Int32 = npt.NDArray[np.int32]
MIN_AREA_PX = 12  # anything smaller is not a nucleus at any resolution in use
CHUNK = 1024  # as many masks as have outlines that stay in the cache together
MASKS_PER_SEARCH = 64  # OpenCV finds contours fastest in images that stay in the cache
VERTICES_PER_STEP = (2, 5)  # 30 vertices for a nucleus of 30 px: its ring then overlaps its pixels by 97 %
VERTICES = (8, 48)
# A step has the code (dy + 1) * 3 + dx + 1. Code 4 is a step to the same place, in the walk round a single pixel.
_CLOCK = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))  # x, y; even entries are sides


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


@dataclass(frozen=True, slots=True)
class Outlines(Rings):
    """Rings in pixels of the crop, anticlockwise as seen with y up."""

    mask: Int64
    """N: the mask that each ring belongs to (several rings may)."""
    area_px: Int64
    """N: pixels inside the ring, holes included."""
    pinched: Bool
    """N: the ring passes a spot where the mask hangs together by a corner only."""


def outlines(mask: UInt8) -> Outlines:
    """Outer outlines of the 8-connected parts of `mask`, N x H x W (0: background); holes are ignored."""
    count, height, width = mask.shape
    # One empty row after each mask and one empty column at either side keep the masks apart.
    tall = np.zeros((count * (height + 1) + 1, width + 2), np.uint8)
    tall[1:].reshape(count, height + 1, width + 2)[:, :height, 1:-1] = mask
    walks = _walks(tall, height + 1)
    if not walks:
        none = np.zeros(0, np.int64)
        return Outlines(np.zeros((0, 2)), np.zeros(1, np.int64), none, none, none.astype(np.bool_))
    offsets = offsets_of(np.fromiter(map(len, walks), np.int64, len(walks)))
    walk = np.concatenate(walks)[:, 0]
    leaving, turn = _steps(walk, offsets)
    owner = (walk[offsets[:-1], 1] - 1).astype(np.int64) // (height + 1)
    rings = _averaged(walk, turn, offsets, owner * (height + 1))
    # The area under all right-hand sides less that under all left-hand sides of the filled mask.
    area = np.add.reduceat(_RIGHT[turn] * (walk[:, 0] + 1) - _LEFT[turn] * walk[:, 0], offsets[:-1])
    inner = walk[:, 1] * (width + 2) + walk[:, 0] + _inner_pixel(width + 2)[leaving]
    pinched = np.logical_or.reduceat((tall.ravel()[inner] == 0) & _DIAGONAL[leaving], offsets[:-1])
    return Outlines(rings.xy, rings.offsets, owner, area, pinched)


def _walks(tall: UInt8, rows_per_mask: int) -> list[Int32]:
    """OpenCV's walks through the outermost pixels of all parts, each n x 1 x 2."""
    rows = MASKS_PER_SEARCH * rows_per_mask
    walks: list[Int32] = []
    for row in range(0, len(tall) - 1, rows):
        piece = tall[row : row + rows + 1]
        walks += cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(0, row))[0]
    return walks


def _steps(walk: Int32, offsets: Int64) -> tuple[Int32, Int32]:
    """For each pixel of the walks the step that leaves it, and the turn: arriving step * 9 + leaving step."""
    moved = np.empty_like(walk)
    moved[:-1] = walk[1:] - walk[:-1]
    moved[offsets[1:] - 1] = walk[offsets[:-1]] - walk[offsets[1:] - 1]
    leaving = moved[:, 1] * 3 + moved[:, 0] + 4
    arriving = np.empty_like(leaving)
    arriving[1:] = leaving[:-1]
    arriving[offsets[:-1]] = leaving[offsets[1:] - 1]
    return leaving, arriving * 9 + leaving


def _averaged(walk: Int32, turn: Int32, offsets: Int64, row0: Int64) -> Rings:
    """One vertex per run of steps: the mean of the crack middles that it passes. `row0`: the mask's first row."""
    steps = np.diff(offsets)
    vertices = np.minimum(np.clip(steps * VERTICES_PER_STEP[0] // VERTICES_PER_STEP[1], *VERTICES), steps)
    vertex_offsets = offsets_of(vertices)
    owner, rank = spans(vertices)
    runs = offsets[owner] + rank * steps[owner] // vertices[owner]
    sides = _SIDES[turn]
    total = np.add.reduceat(sides, runs).astype(np.int64)
    # The sums are doubled so that half pixels stay whole numbers. They also take off the stack's one-pixel border.
    twice_x = np.add.reduceat(sides * (2 * walk[:, 0] - 1) + _DX[turn], runs)
    twice_y = np.add.reduceat(sides * (2 * walk[:, 1] - 1) + _DY[turn], runs) - 2 * total * np.repeat(
        row0, vertices
    )
    xy = np.stack([twice_x, twice_y], axis=1) / (2 * np.maximum(total, 1))[:, None]
    backwards = np.repeat(vertex_offsets[:-1] + vertex_offsets[1:] - 1, vertices) - np.arange(len(xy))
    # A run without a crack (a sharp inner corner) has no vertex of its own.
    lengths = np.add.reduceat((total > 0).astype(np.int64), vertex_offsets[:-1])
    return Rings(xy[backwards][total[backwards] > 0], offsets_of(lengths))


def _tables() -> list[Int32]:
    """For each turn: how many open sides it has, their summed x and y directions, and how many are right and left.

    Of the eight neighbours, those strictly between the pixel that the walk came from and the one it goes to are
    background. These are seven where it turns back at the tip of a spike.
    """
    tables = np.zeros((5, 81), np.int32)
    place = {(dy + 1) * 3 + dx + 1: i for i, (dx, dy) in enumerate(_CLOCK)}
    for arriving, a in place.items():
        for leaving, b in place.items():
            back = (a + 4) % 8
            swept = [(back + 1 + k) % 8 for k in range((b - back - 1) % 8)]
            tables[:, arriving * 9 + leaving] = _summed([_CLOCK[i] for i in swept if i % 2 == 0])
    tables[:, 4 * 9 + 4] = _summed(list(_CLOCK[::2]))
    return list(tables)


def _summed(sides: list[tuple[int, int]]) -> list[int]:
    return [
        len(sides),
        sum(x for x, _ in sides),
        sum(y for _, y in sides),
        sides.count((1, 0)),
        sides.count((-1, 0)),
    ]


_SIDES, _DX, _DY, _RIGHT, _LEFT = _tables()
_DIAGONAL = np.isin(np.arange(9), [0, 2, 6, 8])


def _inner_pixel(width: int) -> Int32:
    """For each diagonal step, the pixel on the side of the mask, relative to the step's start in a flat image."""
    inner = np.zeros(9, np.int32)
    for i, (dx, dy) in enumerate(_CLOCK):
        if i % 2:
            side_x, side_y = _CLOCK[(i + 1) % 8]
            inner[(dy + 1) * 3 + dx + 1] = side_y * width + side_x
    return inner
