"""A nucleus at a seam, a corner or a region border is found once and whole."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stitch.scenes import box, ellipse, rows_of, stitched, table
from wsi_nuc.stitch import StitchRule


def test_nucleus_across_a_seam_comes_from_the_tile_that_owns_its_prompt():
    left = ellipse(99.0, 50.0, 10, 7, 0.2)
    right = ellipse(99.5, 50.3, 10, 7, 0.2)
    seen = table([left, right], [0.6, 0.9], tile=[0, 1])
    kept = stitched(seen, np.array([True, False]), 100)
    assert kept.tile.tolist() == [0]
    assert np.array_equal(kept.xy, left)


def test_nucleus_that_each_tile_places_in_the_other_core_is_kept_once():
    seen = table([ellipse(101.0, 50, 10, 7, 0), ellipse(99.0, 50, 10, 7, 0)], [0.6, 0.9], tile=[0, 1])
    kept = stitched(seen, np.array([False, False]), 100)
    assert kept.tile.tolist() == [1]


@pytest.mark.parametrize("region_l0", [50.0, 100.0, 200.0])
def test_corner_of_four_tiles(region_l0):
    views = [ellipse(100 + dx, 100 + dy, 9, 8, 0) for dx, dy in ((-1, -1), (1, -1), (-1, 1), (1, 1))]
    seen = table(views, [0.5, 0.5, 0.7, 0.5], tile=[0, 1, 2, 3])
    for own, winner in ((3, 3), (0, 0), (None, 2)):
        flags = np.array([tile == own for tile in range(4)])
        assert stitched(seen, flags, region_l0).tile.tolist() == [winner]


def test_row_of_nuclei_across_region_borders_is_complete_and_whole():
    centres = np.arange(10.0, 990.0, 25.0)
    rings = [ellipse(x, x, 10, 8, 0.5) for x in centres]
    seen = table(rings + rings, [0.5] * 2 * len(rings), tile=[0] * len(rings) + [1] * len(rings))
    kept = stitched(seen, seen.tile == 0, 100)
    assert len(kept) == len(rings)
    assert kept.tile.tolist() == [0] * len(rings)
    assert {ring.tobytes() for ring in rings} == {row[-1] for row in rows_of(kept)}


@pytest.mark.parametrize("region_l0", [40.0, 128.0, 3000.0])
@pytest.mark.parametrize("rising", [1, -1])
@pytest.mark.parametrize("down", [False, True])
def test_chain_of_rivals_over_many_regions(region_l0, rising, down):
    """Each suppresses the next, so every verdict depends on the far end of a chain of 300 over 30 regions."""
    place = np.arange(300) * 4.0
    rings = [box(10, at, 30, at + 20) if down else box(at, 10, at + 20, 30) for at in place]
    score = np.linspace(0.1, 0.9, 300)[::rising]
    kept = stitched(table(rings, score), np.ones(300, bool), region_l0, rule=StitchRule(iou=0.6))
    expected = np.sort(place[::-1][::2] if rising == 1 else place[::2])
    assert (np.sort(kept.prompt_xy[:, 1 if down else 0]) - 10).tolist() == expected.tolist()


def test_part_nested_in_its_whole_is_one_nucleus():
    seen = table([box(0, 0, 40, 40), box(5, 5, 15, 15)], [0.9, 0.8])
    own = np.array([True, True])
    assert len(stitched(seen, own, 100)) == 1


def test_touching_and_partly_overlapping_neighbours_both_stay():
    seen = table([ellipse(20, 20, 10, 10, 0), ellipse(40, 20, 10, 10, 0), ellipse(52, 20, 10, 10, 0)], [0.9] * 3)
    assert len(stitched(seen, np.ones(3, bool), 100)) == 3
