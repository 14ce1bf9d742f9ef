"""Which classes are neighbours more often than chance would have it, and how far the nearest nucleus is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wsi_nuc.features.around import Scene

NEIGHBOURS_UM = 30.0
FARTHEST_UM = 100.0
# Distances are summed as whole multiples of this, which add up to the same in any order.
_UNIT_UM = 2.0**-20


class PairCounter:
    """Pairs of nuclei at most `NEIGHBOURS_UM` apart by their two classes: whole numbers, each pair once."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._names = list(classes)
        self._pairs = np.zeros((len(classes), len(classes)), np.int64)
        self._nearest, self._with_neighbour = 0, 0

    def add(self, scene: Scene) -> None:
        from scipy.spatial import cKDTree

        if not scene.own:
            return
        tree = cKDTree(scene.xy_um)
        pairs = tree.query_pairs(NEIGHBOURS_UM, output_type="ndarray")
        own_first = pairs[:, 0] < scene.own
        counts_here = np.concatenate([np.ones(scene.own, np.bool_), scene.earlier])
        pairs = pairs[own_first & counts_here[pairs[:, 1]]]
        first, second = np.sort(scene.class_id[pairs], axis=1).T
        size = len(self._names)
        self._pairs += np.bincount(first * size + second, minlength=size * size).reshape(size, size)
        self._add_nearest(tree, scene)

    def _add_nearest(self, tree: object, scene: Scene) -> None:
        # The first one found is the nucleus itself.
        query = tree.query(scene.xy_um[: scene.own], k=2, distance_upper_bound=FARTHEST_UM)  # type: ignore[attr-defined]
        nearest = query[0][:, 1]
        known = nearest[np.isfinite(nearest)]
        self._nearest += int(np.round(known / _UNIT_UM).astype(np.int64).sum())
        self._with_neighbour += len(known)

    @property
    def nearest_um(self) -> float:
        """Mean distance to the nearest nucleus, of those that have one within `FARTHEST_UM`."""
        if not self._with_neighbour:
            return math.nan
        return self._nearest * _UNIT_UM / self._with_neighbour

    def enrichment(self, counts: Sequence[int]) -> dict[tuple[str, str], float]:
        """log2 of pairs found over pairs expected, were the classes dealt out anew among all nuclei.

        0: as by chance; 1: twice as often. Half a pair is added to both, so that none found is a number, too;
        NaN where there is no such pair to find.
        """
        nuclei, found = sum(counts), int(self._pairs.sum())
        out = {}
        for a, name in enumerate(self._names):
            for b in range(a, len(self._names)):
                possible = counts[a] * (counts[a] - 1) / 2 if a == b else counts[a] * counts[b]
                share = possible / (nuclei * (nuclei - 1) / 2) if nuclei > 1 else 0.0
                out[name, self._names[b]] = _log_ratio(int(self._pairs[a, b]), found * share)
        return out


def _log_ratio(found: int, expected: float) -> float:
    return math.log2((found + 0.5) / (expected + 0.5)) if expected > 0 else math.nan
