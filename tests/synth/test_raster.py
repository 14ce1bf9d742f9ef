"""The rasteriser labels exactly the pixels whose centres a polygon holds."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.synth.raster import label_image


def star(seed: int, centre: tuple[float, float], reach: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 40)))
    radius = rng.uniform(0.3, 1, len(angle)) * reach
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None] + centre
    return ring if seed % 2 else ring[::-1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(st.floats(-5, 55), st.floats(-5, 45)),
    st.floats(0.5, 30),
)
def test_labels_are_the_pixels_whose_centre_lies_inside(seed, centre, reach):
    ring = star(seed, centre, reach)
    labels = label_image(ring, np.array([0, len(ring)]), (40, 50))
    polygon = shapely.Polygon(ring)
    if not polygon.is_valid:
        return
    y, x = np.mgrid[0:40, 0:50] + 0.5
    expected = shapely.contains_xy(polygon, x, y)
    # A centre within rounding of the outline may fall either way.
    close = shapely.distance(shapely.points(x, y), polygon.exterior) < 1e-9
    assert ((labels == 1) == expected)[~close].all()


def test_rings_that_share_an_edge_share_no_pixel_and_leave_no_gap():
    left = np.array([[2.3, 2.0], [10.7, 2.0], [9.2, 14.0], [2.3, 14.0]])
    right = np.array([[10.7, 2.0], [18.0, 2.0], [18.0, 14.0], [9.2, 14.0]])
    labels = label_image(np.concatenate([left, right]), np.array([0, 4, 8]), (20, 20))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[2:14, 2:18] > 0).all()
    assert (labels > 0).sum() == 12 * 16


def test_no_rings_no_labels():
    assert not label_image(np.zeros((0, 2)), np.zeros(1, np.int64), (4, 5)).any()
