"""If every other column is equal, the content of the outline decides, and never the order of arrival."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stitch.scenes import box, crowd, identical, stitched, table

PROMPT = np.array([[50.0, 50.0]])


def both_ways(rings):
    prompts = np.repeat(PROMPT, len(rings), axis=0)
    seen = table(rings, [0.5] * len(rings), prompt=prompts)
    own = np.ones(len(rings), bool)
    return [stitched(seen.select(np.arange(len(rings))[::step]), own, 1000) for step in (1, -1)]


def test_rivals_that_differ_in_outline_only():
    pairs = [both_ways([box(40, 40, 60, 60), box(41, 40, 60, 60), box(40, 41, 60, 60)]) for _ in range(2)]
    assert all(len(kept) == 1 and identical(kept, pairs[0][0]) for pair in pairs for kept in pair)


def test_neighbours_that_share_a_prompt_are_written_in_one_order():
    forward, backward = both_ways([box(40, 40, 48, 60), box(52, 40, 60, 60), box(48, 40, 52, 60)])
    assert len(forward) == 3
    assert identical(forward, backward)


def test_copies_in_every_column_are_one_nucleus():
    forward, backward = both_ways([box(40, 40, 60, 60)] * 5)
    assert len(forward) == 1
    assert identical(forward, backward)


@pytest.mark.parametrize(("seed", "region_l0"), [(0, 37.0), (1, 60.0), (2, 37.0)])
def test_wide_slide_of_small_regions(seed, region_l0):
    """The window of columns that a step looks at moves over chains of rivals that it sees only in part."""
    candidates, own = crowd(seed, 2500, edge=1200)
    assert identical(stitched(candidates, own, region_l0, seed), stitched(candidates, own, 5000))
