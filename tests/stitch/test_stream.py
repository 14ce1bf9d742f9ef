"""Stitching as a stream: memory, laziness, empty and wrong input."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stitch.scenes import MARGIN, REACH, box, ellipse, geometry, stitched, table
from wsi_nuc.errors import ModelError, UsageError
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.stitch import RegionCandidates, StitchGeometry, StitchRule, StitchStats, stitch

EDGE = 512.0
FRAME = StitchGeometry(region_l0=EDGE, margin_l0=MARGIN, reach_l0=REACH, block_l0=EDGE)


def region(row, column, count=400):
    """A full region of dense ellipses."""
    rng = np.random.default_rng([row, column])
    middle = np.array([column, row]) * EDGE + rng.uniform(0, EDGE, (count, 2))
    rings = [ellipse(*xy, *radii, 0.3) for xy, radii in zip(middle, rng.uniform(3, 8, (count, 2)), strict=True)]
    core = (column * EDGE, row * EDGE, (column + 1) * EDGE, (row + 1) * EDGE)
    return RegionCandidates(core, table(rings, rng.random(count)), np.ones(count, bool))


def peak(rows, columns):
    stats = StitchStats()
    for _ in stitch((region(r, c) for r in range(rows) for c in range(columns)), FRAME, stats=stats):
        pass
    assert stats.candidates == 400 * rows * columns
    return stats.peak_held


def test_rows_held_grow_neither_with_height_nor_much_with_width():
    base = peak(4, 4)
    assert peak(12, 4) <= 1.1 * base
    # A further column may only add the band along its lower edge, not its content.
    band = 400 * (FRAME.block_shift_l0 + 2 * REACH) / EDGE
    assert peak(4, 8) <= base + 4 * band < base + 4 * 400


def test_blocks_come_out_while_regions_still_go_in():
    pulled = []

    def regions():
        for row in range(6):
            for column in range(2):
                pulled.append((row, column))
                yield region(row, column, 50)

    assert len(next(stitch(regions(), FRAME))) > 0
    assert pulled[-1] < (1, 0)


def test_stream_may_leave_out_regions():
    sparse = [region(0, 3), region(4, 0), region(4, 7), region(9, 2)]
    parts = list(stitch(sparse, FRAME))
    alone = [part for candidates in sparse for part in stitch([candidates], FRAME)]
    assert sum(map(len, parts)) == sum(map(len, alone))


def test_nothing_in_nothing_out():
    assert list(stitch([], FRAME)) == []
    empty = RegionCandidates((0, 0, EDGE, EDGE), NucleiTable.empty(3), np.zeros(0, bool))
    stats = StitchStats()
    assert list(stitch([empty], FRAME, stats=stats)) == []
    assert stats == StitchStats()


@pytest.mark.parametrize(
    "ring",
    [
        [[10, 10], [30, 30], [30, 10], [10, 30]],
        [[10, 10], [30, 10]],
        [[10, 10]],
        [[10, 10], [10, 10], [10, 10]],
        [[10, 10], [20, 10], [30, 10], [20, 10]],
    ],
)
def test_invalid_rings_pass_without_harm(ring):
    seen = table([np.array(ring, float), box(50, 50, 60, 60), box(50, 50, 60, 60)], [0.5, 0.6, 0.7])
    kept = stitched(seen, np.ones(3, bool), 100)
    assert sorted(kept.score.round(1).tolist()) == pytest.approx([0.5, 0.7])


def test_nucleus_larger_than_the_halo_allows_is_refused_by_name():
    seen = table([box(0, 0, 4 * REACH, 10)], [0.5], tile=[17])
    with pytest.raises(ModelError, match=r"tile 17.*extends 48.0 px"):
        stitched(seen, np.array([True]), 1000)


def test_vertices_that_are_not_numbers_are_refused():
    ring = box(0, 0, 10, 10)
    ring[2, 0] = np.nan
    seen = table([ring], [0.5], prompt=np.array([[5.0, 5.0]]))
    with pytest.raises(ModelError, match="tile 0"):
        stitched(seen, np.array([True]), 100)


def test_regions_out_of_order_off_the_grid_or_with_foreign_prompts_are_refused():
    with pytest.raises(ValueError, match="row by row"):
        list(stitch([region(1, 0), region(0, 1)], FRAME))
    with pytest.raises(ValueError, match="row by row"):
        list(stitch([region(1, 0), region(1, 0)], FRAME))
    here = region(0, 0)
    with pytest.raises(ValueError, match="does not start on the grid"):
        list(stitch([RegionCandidates((100, 0, 612, 512), here.table.select(np.arange(0)), here.own[:0])], FRAME))
    with pytest.raises(ValueError, match="outside, margin"):
        list(stitch([RegionCandidates((512, 0, 1024, 512), here.table, here.own)], FRAME))


@pytest.mark.parametrize("wrong", [{"iou": 0}, {"iou": 1}, {"iou": float("nan")}, {"containment": 1}])
def test_rules_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError, match="stitch"):
        StitchRule(**wrong)


@pytest.mark.parametrize("wrong", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, float("nan"), 1), (1, 1, 1, float("inf"))])
def test_geometries_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError, match="not positive"):
        StitchGeometry(*wrong)


def test_blocks_start_up_and_left_of_the_regions():
    assert geometry(100).blocks(np.array([[0.0, 0.0], [200.0, 0.0]])).tolist() == [[0, 0], [0, 2]]
