"""Rasterising: pixel centres decide, holes stay open, areas are unbiased, nothing outside is written."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.bruteforce import crossing_number
from wsi_nuc.datasets.raster import fill, rasterise

COORDINATE = st.one_of(st.integers(-3, 12).map(float), st.integers(-6, 24).map(lambda v: v / 2), st.floats(-3, 12))
RING = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=7).map(np.array)


@given(st.lists(RING, min_size=1, max_size=2))
@settings(max_examples=150, deadline=None)
def test_filling_equals_the_crossing_number_of_every_pixel_centre(rings: list[np.ndarray]) -> None:
    x0, y0, mask = fill(rings, 9, 8)
    image = np.zeros((8, 9), bool)
    image[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]] = mask
    slow = [[crossing_number(x + 0.5, y + 0.5, rings) for x in range(9)] for y in range(8)]
    assert np.array_equal(image, np.array(slow))


@given(st.integers(4, 12))
@settings(max_examples=5, deadline=None)
def test_the_area_of_a_disc_is_unbiased_over_its_places_on_the_grid(radius: int) -> None:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    disc = np.stack([20 + radius * np.cos(angle), 20 + radius * np.sin(angle)], 1)
    shifts = np.stack(np.meshgrid(*[np.linspace(0, 1, 16, endpoint=False)] * 2), -1).reshape(-1, 2) + 0.01
    areas = [fill([disc + shift], 40, 40)[2].sum() for shift in shifts]
    assert abs(np.mean(areas) / shapely.Polygon(disc).area - 1) < 0.005


def test_a_box_on_the_grid_covers_exactly_its_pixels_and_a_hole_stays_open() -> None:
    outer = np.array([[1, 1], [7, 1], [7, 6], [1, 6]], float)
    hole = np.array([[3, 2], [5, 2], [5, 4], [3, 4]], float)
    labels, contested = rasterise([[outer, hole], [hole]], 9, 8)
    assert contested == 0
    assert (labels == 1).sum() == 30 - 4
    assert np.array_equal(np.argwhere(labels == 2), [[2, 3], [2, 4], [3, 3], [3, 4]])


def test_pixels_claimed_twice_are_counted_and_go_to_the_later_one() -> None:
    one = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)
    labels, contested = rasterise([[one], [one + 2]], 8, 8)
    assert contested == 4
    assert ((labels == 1).sum(), (labels == 2).sum()) == (12, 16)


def test_a_polygon_outside_leaves_no_pixel() -> None:
    far = np.array([[20, 20], [24, 20], [24, 24]], float)
    labels, _ = rasterise([[far], [far - 40]], 8, 8)
    assert not labels.any()
