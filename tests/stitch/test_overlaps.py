"""Second outlines of a nucleus go, and neighbours that still overlap share no area afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.stitch.scenes import box, ellipse, stitched, table
from wsi_nuc.nuclei import NucleiTable

NUCLEUS = box(0, 0, 40, 10)


def kept(*rings_and_scores: tuple[np.ndarray, float]) -> NucleiTable:
    """What is left, the best first, of outlines of one tile."""
    rings, scores = zip(*rings_and_scores, strict=True)
    nuclei = stitched(table(list(rings), list(scores)), np.ones(len(rings), bool), 100)
    return nuclei.select(np.argsort(-nuclei.score))


def same(ring: np.ndarray, *boxes: tuple[float, float, float, float]) -> bool:
    return bool(shapely.equals(shapely.Polygon(ring), shapely.union_all([shapely.box(*each) for each in boxes])))


@pytest.mark.parametrize(("small", "large", "left"), [(0.6, 0.4, 20.0), (0.4, 0.6, 33.0)])
def test_of_two_outlines_of_a_long_nucleus_the_better_one_stays(small, large, left):
    """Four fifths of the smaller one lie in the other, though the IoU is below a half."""
    nuclei = kept((box(0, 0, 20, 10), small), (box(4, 0, 37, 10), large))
    assert np.abs(nuclei.signed_areas()).tolist() == [10 * left]


def test_of_neighbours_the_better_one_keeps_what_they_share():
    nuclei = kept((NUCLEUS, 0.9), (box(15, 5, 55, 25), 0.4))
    assert len(nuclei) == 2
    assert nuclei.ring(0).tolist() == NUCLEUS.tolist()
    assert same(nuclei.ring(1), (15, 10, 55, 25), (40, 5, 55, 25))


def test_a_better_outline_that_leaks_over_most_of_a_neighbour_is_cut():
    """The neighbour would lose seven tenths of itself, the better one a quarter."""
    neighbour = box(26, 0, 46, 10)
    nuclei = kept((box(0, 0, 40, 14), 0.9), (neighbour, 0.4))
    assert same(nuclei.ring(0), (0, 0, 26, 14), (0, 10, 40, 14))
    assert nuclei.ring(1).tolist() == neighbour.tolist()


def test_where_both_would_lose_more_than_half_the_better_one_keeps_it():
    nuclei = kept((NUCLEUS, 0.9), (box(16, 0, 56, 10), 0.4))
    assert [same(nuclei.ring(0), (0, 0, 40, 10)), same(nuclei.ring(1), (40, 0, 56, 10))] == [True, True]


def test_touching_neighbours_stay_as_they_are():
    nuclei = kept((NUCLEUS, 0.9), (box(40, 0, 60, 10), 0.8), (box(5, 10, 30, 20), 0.7))
    assert [nuclei.ring(row).tolist() for row in range(3)] == [
        NUCLEUS.tolist(),
        box(40, 0, 60, 10).tolist(),
        box(5, 10, 30, 20).tolist(),
    ]


@pytest.mark.parametrize(("small", "large", "left"), [(0.9, 0.5, [100.0]), (0.5, 0.9, [1600.0])])
def test_of_a_small_outline_inside_of_a_large_one_the_better_one_stays(small, large, left):
    nuclei = kept((box(15, 15, 25, 25), small), (box(0, 0, 40, 40), large))
    assert np.abs(nuclei.signed_areas()).tolist() == left


def test_a_small_outline_that_lies_half_in_a_large_one_stays_beside_it():
    nuclei = kept((box(35, 15, 45, 25), 0.9), (box(0, 0, 40, 40), 0.5))
    assert np.abs(nuclei.signed_areas()).tolist() == [100.0, 1600.0 - 50]
    nuclei = kept((box(35, 15, 45, 25), 0.5), (box(0, 0, 40, 40), 0.9))
    assert np.abs(nuclei.signed_areas()).tolist() == [1600.0, 50.0]


@pytest.mark.parametrize(("first", "second", "stay"), [(20, 40, 3), (24, 35, 3), (25, 34, 2)])
def test_a_nucleus_of_which_others_leave_less_than_a_quarter_goes(first, second, stay):
    middle = (box(10, 0, 50, 10), 0.5)
    assert len(kept((box(0, 0, first, 10), 0.9), (box(second, 0, 60, 10), 0.8), middle)) == stay


def test_a_second_outline_that_goes_cuts_nobody():
    first, second, neighbour = (NUCLEUS, 0.9), (box(4, 0, 44, 10), 0.8), (box(42, 0, 60, 10), 0.7)
    nuclei = kept(first, second, neighbour)
    assert nuclei.score.round(1).tolist() == pytest.approx([0.9, 0.7])
    assert nuclei.ring(1).tolist() == box(42, 0, 60, 10).tolist()


def test_owners_cut_with_their_outlines_as_they_were_before_they_were_cut_themselves():
    """The third loses what the second shares with it, also where the second lost that to the first."""
    first, second, third = (box(0, 0, 20, 20), 0.9), (box(16, 0, 40, 20), 0.8), (box(10, 18, 30, 40), 0.7)
    nuclei = kept(first, second, third)
    assert same(nuclei.ring(1), (20, 0, 40, 20))
    assert same(nuclei.ring(2), (10, 20, 30, 40))
    assert np.abs(nuclei.signed_areas()).sum() == shapely.union_all(nuclei.polygons()).area


def test_of_two_pieces_the_larger_one_stays():
    nuclei = kept((box(22, -10, 28, 20), 0.9), (NUCLEUS, 0.8))
    assert same(nuclei.ring(1), (0, 0, 22, 10))


@pytest.mark.parametrize("region_l0", [30.0, 50.0, 1000.0])
@pytest.mark.parametrize("rising", [1, -1])
def test_a_row_of_neighbours_across_regions_is_cut_as_in_one_region(region_l0, rising):
    """Each overlaps the next a little, so what is left of each waits for both neighbours."""
    rings = [ellipse(10 + 14 * k, 30, 8, 6, 0) for k in range(60)]
    seen = table(rings, np.linspace(0.1, 0.9, 60)[::rising])
    nuclei = stitched(seen, np.ones(60, bool), region_l0, seed=3)
    assert len(nuclei) == 60
    outlines = nuclei.polygons()
    assert shapely.area(outlines).sum() == pytest.approx(shapely.union_all(outlines).area, abs=1e-6)
    assert shapely.area(outlines).sum() == pytest.approx(shapely.union_all(seen.polygons()).area, abs=1e-6)
    whole = stitched(seen, np.ones(60, bool), 5000.0)
    assert nuclei.xy.tobytes() == whole.xy.tobytes()
