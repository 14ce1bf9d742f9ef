"""Labelled patches of a slide around its dots, with the same pixels as a run reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np
import shapely

from wsi_nuc.datasets.labels import filled
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.slides.address import shown
from wsi_nuc.slides.mpp import require_mpp
from wsi_nuc.slides.pixels import read_around
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.tiling.read import resample
from wsi_nuc.tiling.scale import Scale, choose_scale, grid_size
from wsi_nuc.training.dots.checks import NOT_DARKER, not_darker, on_slide
from wsi_nuc.training.dots.config import DotsConfig
from wsi_nuc.training.dots.reading import read_dots
from wsi_nuc.training.dots.record import Dots
from wsi_nuc.types import Bool, Box, Float32, Float64, Int64, SlideRef, SlideSource, UInt8

# Dots and regions are put into as few patches as one of OFFSETS x OFFSETS places of the grid needs.
OFFSETS = 8
# For more dots, the place of the grid hardly changes their number.
MANY_DOTS = 20_000
Found = tuple[list[LabelledImage], tuple[str, ...], dict[str, int], dict[str, object]]


def images_of_slide(config: DotsConfig, mpp: float, classes: tuple[str, ...] | None) -> Found:
    if config.points is None:
        raise UsageError("--points", "is missing, and the slide has no dots of its own", "name the file of dots")
    dots = read_dots(config.points).in_classes(config.classes, classes, config.points)
    with closing(open_slide(SlideRef(config.slide, mpp=config.mpp))) as source:
        slide_mpp = require_mpp(source.info)
        scale = choose_scale(source.info, slide_mpp, mpp)
        dots = on_slide(dots, source, slide_mpp, config)
        images = list(_patches(dots, source, scale, config))
    chosen = sum(image.count or 0 for image in images)
    lost = sum(image.repairs.get(LOST, 0) for image in images)
    dots = dots.noting(f"dots beyond the {config.most_patches} patches that are used", len(dots) - chosen - lost)
    dots = dots.noting(NOT_DARKER, not_darker(images, config.points, config.least_on_nuclei))
    name = PurePath(shown(config.slide)).name
    about: dict[str, object] = {"name": name, "licence": "unknown", "trains_released": None}
    return images, dots.classes, dict(dots.repairs), about


LOST = "dots where the slide has no pixels (dropped)"


def _patches(dots: Dots, source: SlideSource, scale: Scale, config: DotsConfig) -> Iterator[LabelledImage]:
    edge = config.patch_px
    xy = dots.xy / scale.l0_per_grid
    region = None if dots.region is None else shapely.transform(dots.region, lambda xy: xy / scale.l0_per_grid)
    reach = config.surroundings_um / scale.grid_mpp
    origin = _origin(xy, region, edge)
    cells = _cells(xy, region, edge, origin)
    if len(cells) > config.most_patches:
        # The same for the same dots; the order of the slide is kept, so that its blocks are decoded once.
        cells = cells[np.sort(np.random.default_rng(0).permutation(len(cells))[: config.most_patches])]
    name = PurePath(shown(config.slide)).name
    width, height = grid_size(source.info, scale.l0_per_grid)
    for column, row in cells.tolist():
        x0, y0 = column * edge + origin[0], row * edge + origin[1]
        box = Box(x0, y0, x0 + edge, y0 + edge)
        rgb, there = _pixels(source, scale, box)
        there &= _covered(Box(0, 0, width, height), box)
        near = np.flatnonzero(
            ((xy >= (x0 - reach, y0 - reach)) & (xy < (x0 + edge + reach, y0 + edge + reach))).all(1)
        )
        local = xy[near] - (x0, y0)
        known = known_pixels(local, _within(region, box), (edge, edge), reach) & there
        inside = ((local >= 0) & (local < edge)).all(axis=1)
        own, kinds = local[inside], dots.kinds[near][inside]
        lit = there[tuple(np.floor(own[:, ::-1]).astype(np.int64).T)]
        corner = (round(x0 * scale.l0_per_grid), round(y0 * scale.l0_per_grid))
        place = f"{name}@{corner[0]},{corner[1]}"
        yield LabelledImage(
            place,
            rgb,
            points_xy=own[lit],
            point_types=kinds[lit],
            mpp=scale.grid_mpp,
            classes=dots.classes,
            point_classes=dots.classes,
            source=name,
            group=place,
            known=known,
            repairs={LOST: int(np.count_nonzero(~lit))} if not lit.all() else {},
        )


def _origin(xy: Float64, region: Any, edge: int) -> tuple[int, int]:
    """A corner of the grid that needs the fewest cells; of equal ones, that with the fewest dots near borders."""
    steps = range(0, edge, edge // OFFSETS)
    corners = [(x, y) for y in steps for x in steps]
    boxes = np.zeros((0, 4)) if region is None else shapely.bounds(shapely.get_parts(region))
    corners += [(int(x) % edge, int(y) % edge) for x, y in np.floor(boxes[:OFFSETS, :2])]
    if len(xy) > MANY_DOTS:
        return corners[-1]

    def cost(corner: tuple[int, int]) -> tuple[int, int]:
        cells = np.unique(np.floor((xy - corner) / edge), axis=0)
        low, high = np.floor((boxes[:, :2] - corner) / edge), np.ceil((boxes[:, 2:] - corner) / edge)
        within = (xy - corner) % edge
        crossed = ((within < edge / 32) | (within > edge - edge / 32)).any(axis=1)
        return len(cells) + int((high - low).prod(axis=1).sum()), int(np.count_nonzero(crossed))

    return min(corners, key=cost)


def _cells(xy: Float64, region: Any, edge: int, origin: tuple[int, int]) -> Int64:
    """N x 2: column and row of the cells that hold dots or meet the region, row by row."""
    cells = [np.floor((xy - origin) / edge).astype(np.int64)]
    if region is not None:
        for part in shapely.get_parts(region):
            x0, y0, x1, y1 = (np.array(part.bounds) - (*origin, *origin)) / edge
            columns, rows = (np.arange(math.floor(a), math.ceil(b)) for a, b in ((x0, x1), (y0, y1)))
            grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
            low = grid * edge + origin
            shapely.prepare(part)
            cells.append(grid[shapely.intersects(part, shapely.box(*low.T, *(low + edge).T))])
    unique = np.unique(np.concatenate(cells)[:, ::-1], axis=0)
    return np.ascontiguousarray(unique[:, ::-1])


def _pixels(source: SlideSource, scale: Scale, box: Box) -> tuple[UInt8, Bool]:
    """As a run reads them, white outside of the slide; and where the slide has pixels."""
    level_box = scale.level_box(box)
    block = read_around(source, scale.level, level_box)
    rgb = resample(block.rgb, level_box, scale, box)
    if block.lost is None:
        return rgb, np.ones((box.height, box.width), np.bool_)
    gaps = np.repeat(block.lost[:, :, None].astype(np.uint8) * 255, 3, axis=2)
    return rgb, np.asarray(resample(gaps, level_box, scale, box)[:, :, 0] == 0)


def _covered(slide: Box, box: Box) -> Bool:
    """The pixels of `box` that lie on the slide."""
    there = np.zeros((box.height, box.width), np.bool_)
    part = slide.intersect(box)
    if part.area:
        there[part.y0 - box.y0 : part.y1 - box.y0, part.x0 - box.x0 : part.x1 - box.x0] = True
    return there


def _within(region: Any, box: Box) -> Any:
    """The part of the region in the box, in pixels of the box."""
    if region is None:
        return None
    part = shapely.clip_by_rect(region, box.x0 - 1, box.y0 - 1, box.x1 + 1, box.y1 + 1)
    return shapely.transform(part, lambda xy: xy - (box.x0, box.y0))


def known_pixels(xy: Float64, region: Any, size: tuple[int, int], reach_px: float) -> Bool:
    """H x W: inside of the region, or nearer than `reach_px` to a dot of the image.

    Pixels that are near to a dot outside of the image, and nearer to it than to one inside, are not known: its
    nucleus may reach in. So the surroundings are the Voronoi cells of the dots inside, cut at that distance.
    """
    height, width = size
    known = np.zeros(size, np.bool_)
    if region is not None and not region.is_empty:
        outlines = [
            [shapely.get_coordinates(ring) for ring in shapely.get_rings(part)]
            for part in shapely.get_parts(region)
            if part.geom_type == "Polygon"
        ]
        known = filled(outlines, width, height)[0] > 0
    inside = ((xy >= 0) & (xy < (width, height))).all(axis=1)
    own, other = (_distance(dots, size, math.ceil(reach_px)) for dots in (xy[inside], xy[~inside]))
    return np.asarray((known | (own <= reach_px)) & ~((other <= reach_px) & (other < own)))


def _distance(xy: Float64, size: tuple[int, int], pad: int) -> Float32:
    """H x W: in pixels to the nearest dot that is at most `pad` pixels outside of the image."""
    height, width = size
    empty = np.ones((height + 2 * pad, width + 2 * pad), np.uint8)
    places = np.floor(xy).astype(np.int64) + pad
    x, y = places[((places >= 0) & (places < empty.shape[::-1])).all(axis=1)].T
    if not len(x):
        return np.full(size, np.inf, np.float32)
    empty[y, x] = 0
    distance = cv2.distanceTransform(empty, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance[pad : pad + height, pad : pad + width], np.float32)
