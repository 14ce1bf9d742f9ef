"""Whether dots can belong to these pixels: on the slide, on tissue, on nuclei."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import shapely

from wsi_nuc.datasets.record import DataError, LabelledImage
from wsi_nuc.slides.overview import overview
from wsi_nuc.tissue.area import inside, pieces, polygons_only
from wsi_nuc.tissue.find import tissue_for
from wsi_nuc.training.dots.config import DotsConfig
from wsi_nuc.training.dots.record import Dots
from wsi_nuc.types import Bool, Float64, SlideSource

# The search for tissue may miss a pale border; further out, a dot is on glass.
GLASS_UM = 50.0
# Tissue has 1000 to 10,000 nuclei per mm2; a smaller region may be empty for a reason.
LARGE_MM2, SPARSE_PER_MM2 = 0.25, 100
# Fewer dots say little about the place of all.
LEAST_TO_JUDGE = 100
OUTSIDE = "dots outside of the slide or image (dropped)"
NOT_DARKER = "dots no darker than their surroundings (kept)"
WRONG_PIXELS = "they may be drawn on another slide or level, or be in micrometres: export them in level-0 pixels"


def on_slide(dots: Dots, source: SlideSource, mpp: float, config: DotsConfig) -> Dots:
    """One dot per nucleus, on the slide and not in glass. If most are elsewhere, the file is for another slide."""
    info, points = source.info, config.points or config.slide
    on_it = _inside(dots.xy, info.width, info.height)
    if not on_it.all():
        low, high = (edge(dots.xy, axis=0).tolist() for edge in (np.min, np.max))
        extent = f"x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}"
        where = f"outside of the slide of {info.width} x {info.height} px (dots: {extent})"
        refuse_most(~on_it, points, where, WRONG_PIXELS)
    dots = _region_on_slide(dots.keeping(on_it, OUTSIDE), source, mpp, config)
    dots = dots.one_per_nucleus(config.same_nucleus_um / mpp)
    if not len(dots):
        return dots
    view = overview(source, mpp)
    tissue = tissue_for(view, config.tissue).polygons
    in_tissue = inside(pieces(tissue), dots.xy)
    on_glass = ~in_tissue
    if on_glass.any():
        shapely.prepare(tissue)
        on_glass[on_glass] = ~shapely.dwithin(tissue, shapely.points(dots.xy[on_glass]), GLASS_UM / mpp)
    refuse_most(on_glass, points, "in glass", f"{WRONG_PIXELS}; or pass dots.tissue=none if this is tissue")
    dots = dots.noting("dots at the border of the tissue (kept)", int(np.count_nonzero(~in_tissue & ~on_glass)))
    return dots.keeping(~on_glass, "dots in glass (dropped)")


def _region_on_slide(dots: Dots, source: SlideSource, mpp: float, config: DotsConfig) -> Dots:
    """With the regions cut to the slide. Large ones with hardly a dot were not drawn around dotted nuclei."""
    if dots.region is None or not config.regions:
        return replace(dots, region=None)
    box = source.info.box_l0
    region = polygons_only(shapely.intersection(dots.region, shapely.box(box.x0, box.y0, box.x1, box.y1)))
    if region.is_empty:
        return replace(dots, region=None).noting("drawn regions outside of the slide (ignored)")
    area_mm2 = float(region.area) * (mpp / 1000) ** 2
    number = int(np.count_nonzero(inside(pieces(region), dots.xy)))
    if area_mm2 > LARGE_MM2 and number < SPARSE_PER_MM2 * area_mm2:
        raise DataError(
            config.points or config.slide,
            f"its drawn regions have {area_mm2:.3g} mm2 and {number} dots, and in them a nucleus without a dot "
            "counts as background",
            "export only regions where every nucleus has a dot, or pass dots.regions=false",
        )
    return replace(dots, region=region)


def on_pixels(xy: Float64, image: LabelledImage) -> Bool:
    """N: which points lie on the image."""
    height, width = image.rgb.shape[:2]
    return _inside(xy, width, height)


def _inside(xy: Float64, width: int, height: int) -> Bool:
    return np.asarray(((xy >= 0) & (xy < (width, height))).all(axis=1))


def refuse_most(wrong: Bool, points: Path | str, where: str, remedy: str) -> None:
    """Raise if more than half of the dots are at a wrong place."""
    number, total = int(np.count_nonzero(wrong)), len(wrong)
    if 2 * number > total:
        raise DataError(points, f"{number} of its {total} dots lie {where}", remedy)


def not_darker(images: Sequence[LabelledImage], points: Path | str, least: float) -> int:
    """How many dots are no darker than what surrounds them.

    Of dots on nuclei at least seven in ten are darker, of places chosen by chance about four in ten. So a smaller
    share than `least` is an error.
    """
    darker = np.concatenate([np.zeros(0, np.bool_), *(contrast(image) > 0 for image in images)])
    number, total = int(np.count_nonzero(~darker)), len(darker)
    if total >= LEAST_TO_JUDGE and total - number < least * total:
        raise DataError(
            points,
            f"{number} of {total} dots are no darker than their surroundings, so they are not on nuclei",
            f"{WRONG_PIXELS}; or pass dots.least_on_nuclei=0 if nuclei are bright here",
        )
    return number


def contrast(image: LabelledImage, centre_um: float = 1.5, ring_um: float = 8.0) -> Float64:
    """N: how much denser the red channel is at each dot than within `ring_um` of it. Haematoxylin absorbs red."""
    assert image.points_xy is not None
    mpp = image.mpp or 0.25
    density = -np.log10((image.rgb[:, :, 0].astype(np.float32) + 1) / 256)
    at, around = (
        cv2.blur(density, (size, size), borderType=cv2.BORDER_REFLECT)
        for size in (2 * round(um / mpp) + 1 for um in (centre_um / 2, ring_um))
    )
    x, y = np.floor(image.points_xy).astype(np.int64).T
    return np.asarray(at[y, x] - around[y, x], np.float64)
