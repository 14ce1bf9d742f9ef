"""Which boxes overlap: a sweep down vertical strips, all in arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wsi_nuc.rings import chunks, ranges
from wsi_nuc.types import Float64, Int64

_PAIRS_AT_ONCE = 1 << 21


def overlapping(bounds: Float64) -> Iterator[tuple[Int64, Int64]]:
    """All pairs of boxes (N x 4: x0, y0, x1, y1) that share some area, each pair once, in chunks."""
    if len(bounds) < 2:
        return
    width = max(float(np.percentile(bounds[:, 2] - bounds[:, 0], 90)), 1e-6) * 2
    first = ((bounds[:, 0] - bounds[:, 0].min()) // width).astype(np.int64)
    last = ((bounds[:, 2] - bounds[:, 0].min()) // width).astype(np.int64)
    box, strip = _spread(np.arange(len(bounds)), first, last)
    order = np.lexsort((bounds[box, 1], strip))
    box, strip = box[order], strip[order]
    reaches = _followers(bounds, box, strip)
    for start, stop in chunks(reaches, _PAIRS_AT_ONCE):
        upper = np.repeat(np.arange(start, stop), reaches[start:stop])
        lower = ranges(np.arange(start, stop) + 1, reaches[start:stop])
        a, b = box[upper], box[lower]
        # Two wide boxes may meet in several strips; only the first that both lie in reports them.
        once = np.maximum(first[a], first[b]) == strip[upper]
        share = (bounds[a, 0] < bounds[b, 2]) & (bounds[b, 0] < bounds[a, 2]) & (bounds[b, 1] < bounds[a, 3])
        share &= (bounds[a, 1] < bounds[b, 3]) & once
        yield a[share], b[share]


def _spread(box: Int64, first: Int64, last: Int64) -> tuple[Int64, Int64]:
    """Every box once for each strip that it lies in."""
    count = last - first + 1
    return np.repeat(box, count), ranges(first, count)


def _followers(bounds: Float64, box: Int64, strip: Int64) -> Int64:
    """How many of the next entries of the same strip start above the bottom of each entry."""
    low, high = bounds[:, 1].min(), bounds[:, 3].max()
    lift = strip * (2 * (high - low) + 1)
    tops = bounds[box, 1] - low + lift
    bottoms = bounds[box, 3] - low + lift
    # Rounding of the lifted keys must not lose a pair; the caller compares the true boxes again.
    stop = np.searchsorted(tops, bottoms + 1e-3, side="left")
    followers: Int64 = np.maximum(stop - np.arange(len(box)) - 1, 0)
    return followers
