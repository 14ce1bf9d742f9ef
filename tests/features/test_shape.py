"""Shape of polygons: as brute force has it, as scikit-image has it on a fine raster, and wherever they lie."""

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

# Turned with the outline, or bound to the axes of the image.
NOT_INVARIANT = {"orientation_rad", "extent"}


def one(ring: Float64) -> dict[str, float]:
    found = shape_features(Rings.of([ring]))
    return {name: float(values[0]) for name, values in found.items()}


def test_every_column_of_the_table_is_there() -> None:
    assert list(one(blobs(1)[0])) == [feature.name for feature in SHAPE]


def test_known_shapes() -> None:
    found = one(np.array([[0.0, 0], [4, 0], [4, 2], [0, 2]]))
    assert found["area_um2"] == 8
    assert found["perimeter_um"] == 12
    assert found["solidity"] == found["convexity"] == found["extent"] == pytest.approx(1)
    assert found["major_axis_um"] == pytest.approx(4 * 4 / np.sqrt(12))
    assert found["minor_axis_um"] == pytest.approx(4 * 2 / np.sqrt(12))
    assert found["feret_max_um"] == pytest.approx(np.hypot(4, 2))
    assert found["feret_min_um"] == pytest.approx(2)
    assert found["orientation_rad"] == pytest.approx(0)
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    disc = one(5 * np.column_stack([np.cos(angle), np.sin(angle)]))
    assert disc["circularity"] == pytest.approx(1, abs=1e-4)
    assert disc["eccentricity"] == pytest.approx(0, abs=1e-3)
    assert disc["radius_mean_um"] == pytest.approx(5, rel=1e-4)
    assert disc["radius_sd_um"] == pytest.approx(0, abs=1e-2)


def test_hull_and_calipers_are_those_of_brute_force() -> None:
    table = nuclei(200, seed=5)
    found = shape_features(table)
    for i in range(len(table)):
        ring = table.xy[table.offsets[i] : table.offsets[i + 1]]
        hull = shapely.Polygon(ring).convex_hull
        corners = np.array(hull.exterior.coords)[:-1]
        sides = np.roll(corners, -1, axis=0) - corners
        normals = np.column_stack([-sides[:, 1], sides[:, 0]]) / np.hypot(*sides.T)[:, None]
        across = corners @ normals.T
        apart = np.hypot(*(ring[:, None] - ring[None]).transpose(2, 0, 1))
        assert found["feret_max_um"][i] == pytest.approx(apart.max())
        assert found["feret_min_um"][i] == pytest.approx(np.ptp(across, axis=0).min())
        assert found["solidity"][i] == pytest.approx(found["area_um2"][i] / hull.area)
        assert found["convexity"][i] == pytest.approx(hull.length / found["perimeter_um"][i])


def test_parallel_sides_do_not_fool_the_calipers() -> None:
    """Regular polygons with an even number of corners have a parallel side to every side."""
    for corners in (4, 6, 8, 64):
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        found = one(np.column_stack([np.cos(angle), np.sin(angle)]))
        assert found["feret_max_um"] == pytest.approx(2)
        assert found["feret_min_um"] == pytest.approx(2 * np.cos(np.pi / corners))


def test_scikit_image_agrees_on_a_fine_raster() -> None:
    """The polygon is exact, the raster approaches it: at 0.05 um a pixel, 60 to 180 pixels across, within 1 %.

    Its hull takes in corners of pixels (2 %), its perimeter is an estimate that is 1 to 3 % off by itself (5 %).
    """
    from skimage.measure import regionprops

    um = 0.05
    xy, offsets = blobs(40, seed=1)
    found = shape_features(Rings(xy, offsets))
    for i in range(len(offsets) - 1):
        (theirs,) = regionprops(raster(xy[offsets[i] : offsets[i + 1]], um))
        ours = {name: values[i] for name, values in found.items()}
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
            # Theirs is counted from the rows' axis towards the columns'.
            turn = (ours["orientation_rad"] - (np.pi / 2 - theirs.orientation) + np.pi / 2) % np.pi - np.pi / 2
            assert abs(turn) < 0.03


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), angle=st.floats(0, 2 * np.pi), x=st.floats(-1e5, 1e5), y=st.floats(-1e5, 1e5))
def test_turning_and_moving_change_nothing(seed: int, angle: float, x: float, y: float) -> None:
    xy, offsets = blobs(5, seed)
    moved = Rings(turned(xy, angle) + np.array([x, y]), offsets)
    here, there = shape_features(Rings(xy, offsets)), shape_features(moved)
    for name in here.keys() - NOT_INVARIANT:
        assert there[name] == pytest.approx(here[name], rel=1e-6, abs=1e-6), name
    bent = (there["orientation_rad"] - here["orientation_rad"] - angle + np.pi / 2) % np.pi - np.pi / 2
    assert np.abs(bent[here["eccentricity"] > 0.3]).max(initial=0) < 1e-4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), start=st.integers(1, 39))
def test_where_a_ring_begins_and_which_way_it_runs_change_nothing(seed: int, start: int) -> None:
    ring = blobs(1, seed)[0]
    plain, rolled, back = one(ring), one(np.roll(ring, start, axis=0)), one(ring[::-1])
    for name, value in plain.items():
        assert rolled[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
        assert back[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_a_flat_ring_has_no_shape_but_harms_no_other() -> None:
    ring, flat = blobs(1)[0], np.array([[0.0, 0], [1, 1], [2, 2]])
    offsets = np.array([0, len(ring), len(ring) + 3, 2 * len(ring) + 3])
    found = shape_features(Rings(np.concatenate([ring, flat, ring]), offsets))
    alone = one(ring)
    for name, values in found.items():
        assert values[0] == values[2] == pytest.approx(alone[name]), name
    assert np.isnan(found["solidity"][1])
