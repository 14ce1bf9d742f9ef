"""Masks of what is not there as boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_nuc.tiling.gaps import MOST_BOXES, boxes_of
from wsi_nuc.types import Bool

masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(masks)
@settings(deadline=None)
def test_boxes_cover_the_mask_exactly_and_do_not_overlap(mask: Bool) -> None:
    drawn = np.zeros(mask.shape, np.int64)
    for box in boxes_of(mask):
        drawn[box.y0 : box.y1, box.x0 : box.x1] += 1
    np.testing.assert_array_equal(drawn, mask.astype(np.int64))


def test_a_ragged_mask_is_covered_by_few_boxes() -> None:
    mask = np.random.default_rng(0).random((301, 503)) < 0.01
    boxes = boxes_of(mask)
    drawn = np.zeros(mask.shape, np.int64)
    for box in boxes:
        drawn[box.y0 : box.y1, box.x0 : box.x1] += 1
    assert len(boxes) <= MOST_BOXES
    assert drawn.max() == 1
    assert (drawn[mask] == 1).all()
