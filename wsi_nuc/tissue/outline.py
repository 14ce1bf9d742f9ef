"""From a mask of stained pixels to smooth polygons in level-0 pixels; every size is in microns."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from wsi_nuc.tissue.area import polygons_only
from wsi_nuc.tissue.masks import closed, grown, half_widths, without_specks
from wsi_nuc.types import Bool, Box, Overview, UInt8

CLOSE_UM = 20.0
DILATE_UM = 30.0
SPECK_MM2 = 0.005
HOLE_MM2 = 0.05
# Coverslip edges and scratches: longer than two millimetres and nowhere as wide as this.
THIN_UM = 90.0
LONG_UM = 2000.0


def cleaned(mask: Bool, view: Overview) -> Bool:
    """Closed, without specks, thin lines and small holes, grown so that nuclei at the edge are not lost."""
    px_per_mm2 = 1e6 / view.um_per_px**2
    # In a patch a speck can be all there is.
    speck_px = min(SPECK_MM2 * px_per_mm2, 0.01 * mask.size)
    mask = closed(mask, CLOSE_UM / view.um_per_px)
    mask = _without_lines(without_specks(mask, speck_px), view.um_per_px)
    mask = _with_unknown(mask, view.unknown)
    mask = grown(mask, max(1.0, DILATE_UM / view.um_per_px))
    return ~without_specks(~mask, HOLE_MM2 * px_per_mm2)


def outline(mask: Bool, l0_per_px: float, box_l0: Box) -> Any:
    """The mask's pixels as a MultiPolygon within `box_l0`, corners cut by at most a pixel."""
    import cv2

    # Doubled, every part has area and contours (which run through pixel centres) miss the edge by a quarter pixel.
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    rings, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    shells = [i for i in range(len(rings)) if hierarchy[0][i][3] < 0]
    holes: dict[int, list[UInt8]] = {i: [] for i in shells}
    for i in set(range(len(rings))) - set(shells):
        holes[int(hierarchy[0][i][3])].append(rings[i][:, 0])
    raw = [shapely.Polygon(rings[i][:, 0], [h for h in holes[i] if len(h) > 3]) for i in shells]
    merged = shapely.union_all(shapely.make_valid(np.array(raw, dtype=object))) if raw else shapely.MultiPolygon()
    grown = shapely.buffer(merged, 0.5, join_style="mitre")
    level0 = shapely.transform(shapely.simplify(grown, 1.0), lambda xy: np.round((xy + 0.5) * (l0_per_px / 2), 3))
    return polygons_only(shapely.clip_by_rect(shapely.make_valid(level0), *_corners(box_l0)))


def _corners(box: Box) -> tuple[int, int, int, int]:
    return box.x0, box.y0, box.x1, box.y1


def _with_unknown(mask: Bool, unknown: Bool) -> Bool:
    """A part without data counts as tissue if most of its rim is: a hole in the file must not look like glass."""
    import cv2

    if not unknown.any() or not mask.any():
        return mask
    filled = mask.copy()
    count, labels = cv2.connectedComponents(unknown.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        part = labels == label
        rim = grown(part, 1.5) & ~unknown
        if rim.any() and mask[rim].mean() >= 0.5:
            filled |= part
    return filled


def _without_lines(mask: Bool, um_per_px: float) -> Bool:
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    # Half a line's width is reached along its spine: a part is wide if it has any pixel deeper than that.
    thin_px = max(THIN_UM / 2 / um_per_px, 1.5)
    wide = np.bincount(labels[half_widths(mask) >= thin_px], minlength=count) > 0
    long_um = um_per_px * stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    line = ~wide & (long_um > LONG_UM)
    return np.asarray(mask & ~line[labels])
