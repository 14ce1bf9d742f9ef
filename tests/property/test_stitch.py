"""The stitched result is the one that the definition names, however the candidates arrive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stitch.scenes import BLOCK, agrees, box, crowd, geometry, identical, reference, rows_of, stitched, table
from wsi_nuc.stitch import StitchRule
from wsi_nuc.types import Box

SEEDS = st.integers(0, 2**32 - 1)
IOU, CONTAINMENT = st.sampled_from([0.2, 0.5, 0.75]), st.sampled_from([0.4, 0.75, 0.95])
RULES = st.builds(StitchRule, iou=IOU, containment=CONTAINMENT)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 120), region=st.sampled_from([40.0, 128.0, 1000.0]), rule=RULES)
def test_result_is_the_greedy_one_of_the_definition(seed, count, region, rule):
    candidates, own = crowd(seed, count, edge=260)
    result = stitched(candidates, own, region, seed, rule)
    assert agrees(result, candidates, reference(candidates, own, rule))


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
    assert agrees(result, candidates, reference(candidates, own, rule))


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
@given(seed=SEEDS, count=st.integers(1, 150), step=st.sampled_from([None, 1 / 64, 1.0]))
def test_no_two_survivors_share_any_area(seed, count, step):
    """Neither do they on the pixels of the classical model, where outlines run along each other."""
    candidates, own = crowd(seed, count, edge=260)
    if step is not None:
        candidates = replace(candidates, xy=np.round(candidates.xy / step) * step)
    survivors = stitched(candidates, own, 100)
    outlines = survivors.polygons()
    a, b = np.triu_indices(len(outlines), 1)
    assert shapely.is_valid(outlines).all()
    assert shapely.area(shapely.intersection(outlines[a], outlines[b])).max(initial=0) <= 1e-6
    pixels, _ = survivors.covered(Box(0, 0, 300, 300))
    assert step == 1.0 or len(np.unique(pixels)) == len(pixels)
    assert identical(stitched(survivors, np.ones(len(survivors), bool), 64), survivors)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 200))
def test_written_block_by_block(seed, count):
    candidates, own = crowd(seed, count, edge=500)
    blocks = geometry(100).blocks(stitched(candidates, own, 100).prompt_xy).tolist()
    assert blocks == sorted(blocks)
