"""The stitched result is the one that the definition names, however the candidates arrive."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stitch.scenes import BLOCK, box, crowd, geometry, identical, reference_rows, rows_of, stitched, table
from wsi_nuc.stitch import StitchRule

SEEDS = st.integers(0, 2**32 - 1)
RULES = st.builds(StitchRule, iou=st.sampled_from([0.2, 0.5, 0.75]), containment=st.sampled_from([0.4, 0.8, 1.0]))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 120), region=st.sampled_from([40.0, 128.0, 1000.0]), rule=RULES)
def test_result_is_the_greedy_one_of_the_definition(seed, count, region, rule):
    candidates, own = crowd(seed, count, edge=260)
    result = stitched(candidates, own, region, seed, rule)
    expected = candidates.select(np.array(reference_rows(candidates, own, rule)))
    assert rows_of(result) == rows_of(expected)


@st.composite
def boxes(draw):
    """Boxes on whole pixels, so that overlaps exactly at a threshold, and exactly equal ones, are common."""
    corner_and_size = st.tuples(st.integers(0, 150), st.integers(0, 150), st.integers(1, 12), st.integers(1, 12))
    drawn = draw(st.lists(corner_and_size, max_size=40))
    rings = [box(x, y, x + 2 * width, y + 2 * height) for x, y, width, height in drawn]
    count = len(rings)
    score = draw(st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=count, max_size=count))
    own = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return table(rings, score), np.array(own, bool)


@settings(max_examples=60, deadline=None)
@given(scene=boxes(), region=st.sampled_from([32.0, 100.0]), rule=RULES, seed=SEEDS)
def test_boxes_at_exact_thresholds_and_ties(scene, region, rule, seed):
    candidates, own = scene
    result = stitched(candidates, own, region, seed, rule)
    assert rows_of(result) == rows_of(candidates.select(np.array(reference_rows(candidates, own, rule), np.int64)))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, other_seed=SEEDS, count=st.integers(1, 250))
def test_same_bytes_for_every_cut_into_regions(seed, other_seed, count):
    candidates, own = crowd(seed, count, edge=500)
    whole = stitched(candidates, own, region_l0=5000)
    for region in (37.0, BLOCK, 2 * BLOCK, 3 * BLOCK):
        assert identical(stitched(candidates, own, region, other_seed), whole)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 150))
def test_candidates_of_the_margin_only_fill_gaps(seed, count):
    """What the tiles say about their own cores is the same with a margin and without one."""
    candidates, own = crowd(seed, count, edge=260)
    alone = rows_of(stitched(candidates.select(own), own[own], 100))
    both = rows_of(stitched(candidates, own, 100))
    assert set(alone) <= set(both)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 150))
def test_no_two_survivors_are_rivals_and_every_loser_has_a_winner(seed, count):
    candidates, own = crowd(seed, count, edge=260)
    survivors = stitched(candidates, own, 100)
    again = stitched(survivors, np.ones(len(survivors), bool), 64)
    assert identical(again, survivors)
    # With the survivors first in precedence and all candidates after them, nothing may fill a gap that was left.
    everything = type(survivors).concat([survivors, candidates])
    own_of_all = np.arange(len(everything)) < len(survivors)
    assert identical(stitched(everything, own_of_all, 100), survivors)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 200))
def test_written_block_by_block(seed, count):
    candidates, own = crowd(seed, count, edge=500)
    blocks = geometry(100).blocks(stitched(candidates, own, 100).prompt_xy).tolist()
    assert blocks == sorted(blocks)
