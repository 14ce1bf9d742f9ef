"""Shape of polygons: the same as by brute force and by scikit-image on a fine raster, wherever they lie."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.shapes import blobs, raster, turned
from tests.store.build import nuclei
from wsi_nuc.features.registry import SHAPE
from wsi_nuc.features.shape import shape_features
from wsi_nuc.rings import Rings
from wsi_nuc.types import Float64

# These turn with the outline, or depend on the axes of the image.
NOT_INVARIANT = {"orientation_rad", "extent"}


def shape_of(ring: Float64) -> dict[str, float]:
    columns = shape_features(Rings.of([ring]))
    return {name: float(values[0]) for name, values in columns.items()}


def test_every_column_of_the_table_is_there() -> None:
    assert list(shape_of(blobs(1)[0])) == [feature.name for feature in SHAPE]


def test_a_rectangle_fills_its_box_and_its_hull() -> None:
    columns = shape_of(np.array([[0.0, 0], [4, 0], [4, 2], [0, 2]]))
    assert columns["solidity"] == columns["convexity"] == columns["extent"] == pytest.approx(1)
    assert columns["orientation_rad"] == pytest.approx(0)


def test_a_disc_is_round() -> None:
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    disc = shape_of(5 * np.column_stack([np.cos(angle), np.sin(angle)]))
    assert disc["circularity"] == pytest.approx(1, abs=1e-4)
    assert disc["eccentricity"] == pytest.approx(0, abs=1e-3)
    assert disc["radius_mean_um"] == pytest.approx(5, rel=1e-4)
    assert disc["radius_sd_um"] == pytest.approx(0, abs=1e-2)


def test_hull_and_calipers_are_those_of_brute_force() -> None:
    table = nuclei(200, seed=5)
    columns = shape_features(table)
    for i in range(len(table)):
        ring = table.xy[table.offsets[i] : table.offsets[i + 1]]
        hull = shapely.Polygon(ring).convex_hull
        corners = np.array(hull.exterior.coords)[:-1]
        sides = np.roll(corners, -1, axis=0) - corners
        normals = np.column_stack([-sides[:, 1], sides[:, 0]]) / np.hypot(*sides.T)[:, None]
        across = corners @ normals.T
        apart = np.hypot(*(ring[:, None] - ring[None]).transpose(2, 0, 1))
        assert columns["feret_max_um"][i] == pytest.approx(apart.max())
        assert columns["feret_min_um"][i] == pytest.approx(np.ptp(across, axis=0).min())
        assert columns["solidity"][i] == pytest.approx(columns["area_um2"][i] / hull.area)
        assert columns["convexity"][i] == pytest.approx(hull.length / columns["perimeter_um"][i])


def test_parallel_sides_do_not_fool_the_calipers() -> None:
    """Regular polygons with an even number of corners have a parallel side to every side."""
    for corners in (4, 6, 8, 64):
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        columns = shape_of(np.column_stack([np.cos(angle), np.sin(angle)]))
        assert columns["feret_max_um"] == pytest.approx(2)
        assert columns["feret_min_um"] == pytest.approx(2 * np.cos(np.pi / corners))


def test_scikit_image_agrees_on_a_fine_raster() -> None:
    """The polygon is exact. The raster approaches it within 1 %, at 0.05 um per pixel and 60 to 180 pixels across.

    The raster's hull includes corners of pixels (2 %). Its perimeter is an estimate that is itself 1 to 3 % off (5
    %).
    """
    from skimage.measure import regionprops

    um = 0.05
    xy, offsets = blobs(40, seed=1)
    columns = shape_features(Rings(xy, offsets))
    for i in range(len(offsets) - 1):
        (theirs,) = regionprops(raster(xy[offsets[i] : offsets[i + 1]], um))
        ours = {name: values[i] for name, values in columns.items()}
        assert ours["area_um2"] == pytest.approx(theirs.area * um**2, rel=0.01)
        assert ours["equivalent_diameter_um"] == pytest.approx(theirs.equivalent_diameter_area * um, rel=0.01)
        assert ours["major_axis_um"] == pytest.approx(theirs.axis_major_length * um, rel=0.01)
        assert ours["minor_axis_um"] == pytest.approx(theirs.axis_minor_length * um, rel=0.01)
        assert ours["eccentricity"] == pytest.approx(theirs.eccentricity, abs=0.02)
        assert ours["extent"] == pytest.approx(theirs.extent, rel=0.02)
        assert ours["solidity"] == pytest.approx(theirs.solidity, rel=0.02)
        assert ours["feret_max_um"] == pytest.approx(theirs.feret_diameter_max * um, rel=0.02)
        assert ours["perimeter_um"] == pytest.approx(theirs.perimeter_crofton * um, rel=0.05)
        if ours["eccentricity"] > 0.4:
            # scikit-image counts from the axis of the rows towards that of the columns.
            turn = (ours["orientation_rad"] - (np.pi / 2 - theirs.orientation) + np.pi / 2) % np.pi - np.pi / 2
            assert abs(turn) < 0.03


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), angle=st.floats(0, 2 * np.pi), x=st.floats(-1e5, 1e5), y=st.floats(-1e5, 1e5))
def test_turning_and_moving_change_nothing(seed: int, angle: float, x: float, y: float) -> None:
    xy, offsets = blobs(5, seed)
    moved = Rings(turned(xy, angle) + np.array([x, y]), offsets)
    before, after = shape_features(Rings(xy, offsets)), shape_features(moved)
    for name in before.keys() - NOT_INVARIANT:
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-6), name
    bent = (after["orientation_rad"] - before["orientation_rad"] - angle + np.pi / 2) % np.pi - np.pi / 2
    assert np.abs(bent[before["eccentricity"] > 0.3]).max(initial=0) < 1e-4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), start=st.integers(1, 39))
def test_where_a_ring_begins_and_which_way_it_runs_change_nothing(seed: int, start: int) -> None:
    ring = blobs(1, seed)[0]
    plain, rolled, back = shape_of(ring), shape_of(np.roll(ring, start, axis=0)), shape_of(ring[::-1])
    for name, value in plain.items():
        assert rolled[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
        assert back[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_a_flat_ring_has_no_shape_but_harms_no_other() -> None:
    ring, flat = blobs(1)[0], np.array([[0.0, 0], [1, 1], [2, 2]])
    offsets = np.array([0, len(ring), len(ring) + 3, 2 * len(ring) + 3])
    columns = shape_features(Rings(np.concatenate([ring, flat, ring]), offsets))
    alone = shape_of(ring)
    for name, values in columns.items():
        assert values[0] == values[2] == pytest.approx(alone[name]), name
    assert np.isnan(columns["solidity"][1])
