"""Tissue found on painted scenes: where it must be, where it must not be, and at what cost."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely

from tests.tiling.scenes import DENSE, EOSIN, PALE, PENS, ArraySource, blob, glass, paint, pen_strokes, section
from wsi_nuc.slides.overview import overview
from wsi_nuc.tissue.find import Tissue, find_tissue, intersect, tissue_for
from wsi_nuc.tissue.stain import DARK_FIELD
from wsi_nuc.types import Bool, Box, UInt8

UM = 8.0


def covered(tissue: Tissue, mask: Bool) -> tuple[float, float]:
    """Share of the mask's pixels within the polygons, and share of the other pixels."""
    y, x = np.indices(mask.shape).reshape(2, -1)
    within = shapely.intersects_xy(shapely.unary_union(tissue.polygons), x + 0.5, y + 0.5).reshape(mask.shape)
    return float(within[mask].mean()), float(within[~mask].mean())


def find(image: UInt8) -> Tissue:
    return find_tissue(overview(ArraySource(image), UM))


@pytest.mark.parametrize("colour", [EOSIN, DENSE, PALE, (205, 212, 225), (150, 110, 80)])
def test_tissue_of_any_stain_is_found_whole_and_little_else(colour: tuple[int, ...]) -> None:
    image, mask = section(colour)
    found, wrong = covered(find(image), mask)
    assert found > 0.995
    assert wrong < 0.03


@pytest.mark.parametrize("ink", PENS)
def test_pen_marks_are_not_tissue_and_hide_nothing_beside_them(ink: str) -> None:
    image, mask = section()
    pen = pen_strokes(image.shape)
    tissue = find(paint(image, pen, PENS[ink], 2))
    found, _ = covered(tissue, mask & ~pen)
    apart = pen & (cv2.dilate(mask.astype(np.uint8), np.ones((25, 25))) == 0)
    assert found > 0.99
    assert covered(tissue, apart)[0] < 0.01


def borders(image: UInt8) -> UInt8:
    framed = image.copy()
    framed[:60] = framed[-30:] = framed[:, :40] = 0
    return framed


def half_black(image: UInt8) -> UInt8:
    filled = image.copy()
    filled[:, 620:] = 0
    return filled


@pytest.mark.parametrize("spoil", [borders, half_black])
def test_black_fill_is_not_tissue(spoil: object) -> None:
    image, mask = section()
    spoilt = spoil(image)
    fill = spoilt.max(axis=2) == 0
    tissue = find(spoilt)
    assert tissue.method == "bright field"
    assert covered(tissue, mask & ~fill)[0] > 0.99
    deep = cv2.erode(fill.astype(np.uint8), np.ones((15, 15)), borderValue=1) > 0
    assert covered(tissue, deep)[0] == 0


def edge_of_coverslip() -> UInt8:
    image = glass()
    cv2.rectangle(image, (60, 40), (1150, 860), (120, 150, 170), 3)
    return image


def vignette() -> UInt8:
    y, x = np.mgrid[-0.5:0.5:900j, -0.5:0.5:1200j]
    return (glass() * (1 - 0.12 * (x**2 + y**2))[..., None]).astype(np.uint8)


def only_pen() -> UInt8:
    return paint(glass(), pen_strokes((900, 1200)), PENS["blue"], 2)


def dark_glass() -> UInt8:
    return glass(colour=(6, 6, 6))


BLANK = {
    "glass": glass,
    "noisy glass": lambda: glass(noise=10),
    "warm lamp": lambda: glass(colour=(240, 233, 215)),
    "cool lamp": lambda: glass(colour=(226, 221, 228)),
    "grey": lambda: glass(colour=(200, 200, 203)),
    "black": lambda: np.zeros((300, 400, 3), np.uint8),
    "vignette": vignette,
    "coverslip": edge_of_coverslip,
    "pen": only_pen,
    "dark": dark_glass,
}


@pytest.mark.parametrize("name", BLANK)
def test_a_slide_without_tissue_has_an_empty_area(name: str) -> None:
    tissue = find(BLANK[name]())
    assert tissue.polygons.is_empty
    assert tissue.share == 0


def test_a_crop_that_is_all_tissue_is_taken_whole() -> None:
    tissue = find(paint(glass(), np.ones((900, 1200), np.bool_), EOSIN))
    assert tissue.share == pytest.approx(1)


def test_signal_on_a_dark_field_is_tissue() -> None:
    _, mask = section()
    tissue = find(paint(dark_glass(), mask, (20, 90, 30)))
    assert tissue.method == DARK_FIELD
    assert covered(tissue, mask)[0] > 0.99
    assert covered(tissue, mask)[1] < 0.03


def test_a_patch_is_tissue_from_edge_to_edge_unless_it_is_blank() -> None:
    patch = paint(glass(500, 500), blob((500, 500), (150, 250), 90), EOSIN)
    assert find_tissue(overview(ArraySource(patch), 0.5)).share == 1
    assert find_tissue(overview(ArraySource(glass(500, 500)), 0.5)).share == 0


def test_large_holes_stay_open_and_small_ones_are_filled() -> None:
    y, x = np.indices((900, 1200))
    centre, lumen = np.hypot(x - 420, y - 450), np.hypot(x - 300, y - 450)
    tissue = find(paint(glass(), (centre < 250) & (np.hypot(x - 500, y - 450) > 60) & (lumen > 8), EOSIN))
    assert covered(tissue, np.hypot(x - 500, y - 450) < 45)[0] == 0
    assert covered(tissue, lumen < 10)[0] == 1


def test_polygons_are_valid_and_on_the_slide() -> None:
    image, _ = section()
    tissue = find(image[300:, 200:])
    assert tissue.polygons.is_valid
    assert shapely.box(0, 0, 1000, 600).covers(tissue.polygons)


def test_the_mask_lands_on_the_same_level_0_pixels_at_every_scale() -> None:
    image, _ = section()
    wide = cv2.resize(image, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    once, often = find(image), find_tissue(overview(ArraySource(wide, (1, 4)), UM / 5))
    shrunk = shapely.transform(often.polygons, lambda xy: xy / 5)
    union = shapely.union(once.polygons, shrunk).area
    assert shapely.intersection(once.polygons, shrunk).area / union > 0.97


def test_a_damaged_part_inside_the_tissue_is_searched_and_told() -> None:
    image, mask = section()
    hole = Box(380, 380, 460, 470)
    view = overview(ArraySource(image, damaged=(hole,)), UM)
    assert view.damaged > 0
    tissue = find_tissue(view)
    assert covered(tissue, mask)[0] > 0.9
    inside_hole = np.zeros_like(mask)
    inside_hole[hole.y0 : hole.y1, hole.x0 : hole.x1] = True
    assert covered(tissue, inside_hole)[0] > 0.99


def test_a_hole_in_the_file_inside_the_tissue_is_not_glass() -> None:
    image, mask = section()
    missing = np.zeros_like(mask)
    missing[350:550, 330:520] = missing[:200, 900:] = True
    tissue = find_tissue(overview(ArraySource(image, missing=missing), UM))
    assert covered(tissue, mask)[0] > 0.99
    assert covered(tissue, missing & ~mask)[0] < 0.01


def test_the_whole_slide_and_the_choice_of_a_file(tmp_path: object) -> None:
    view = overview(ArraySource(glass()), UM)
    assert tissue_for(view, "none").share == 1
    path = tmp_path / "area.geojson"
    path.write_text(shapely.to_geojson(shapely.box(0, 0, 600, 900)))
    assert tissue_for(view, str(path)).share == pytest.approx(0.5)
    assert tissue_for(view).share == 0


def test_a_region_of_interest_on_background_leaves_nothing() -> None:
    area = shapely.MultiPolygon([shapely.box(0, 0, 10, 10)])
    assert intersect(area, shapely.MultiPolygon([shapely.box(10, 0, 20, 10)])).is_empty
    assert intersect(area, shapely.MultiPolygon([shapely.box(5, 0, 20, 10)])).area == 50
