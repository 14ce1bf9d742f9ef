"""Greedy suppression in the order of precedence, as far as what has been seen allows."""

from __future__ import annotations

import numpy as np

from wsi_nuc.stitch.conflicts import Conflicts
from wsi_nuc.types import Bool, UInt8

KEPT, OPEN, SUPPRESSED = 0, 1, 2


def settle(closed: Bool, edges: Conflicts) -> UInt8:
    """N uint8: KEPT, SUPPRESSED or OPEN. `closed`: all rivals of the row are among the rows given.

    The edges come in the order of precedence of their losers, so a winner's state is final when it is used:
    one pass decides all, and in a complete graph nothing stays open.
    """
    state = np.where(closed, KEPT, OPEN).astype(np.uint8).tolist()
    for winner, loser in zip(edges.winner.tolist(), edges.loser.tolist(), strict=True):
        if state[winner] == KEPT:
            state[loser] = SUPPRESSED
        elif state[winner] == OPEN and state[loser] == KEPT:
            state[loser] = OPEN
    return np.array(state, np.uint8)
