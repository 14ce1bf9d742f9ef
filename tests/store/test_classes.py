"""Statistics per class do not depend on the order and pieces of the stream, and agree with NumPy on whole data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.store.classes import QUANTILES, ClassCounter


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.01, 1e5)), max_size=60),
    st.randoms(use_true_random=False),
    st.integers(1, 9),
)
@settings(deadline=None)
def test_order_and_cut_do_not_show(rows: list[tuple[int, float]], random: object, step: int) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    results = []
    for listed, size in ((rows, max(len(rows), 1)), (shuffled, step)):
        counter = ClassCounter("abc")
        for start in range(0, len(listed), size):
            part = listed[start : start + size]
            counter.add(np.array([c for c, _ in part]), np.array([a for _, a in part]))
        results.append(repr(counter.rows(2.0)))
    assert results[0] == results[1]


@pytest.mark.parametrize("count", [1, 2, 3, 33, 1000])
def test_figures_agree_with_numpy(count: int) -> None:
    areas = np.random.default_rng(count).lognormal(3.5, 0.5, count)
    counter = ClassCounter(["a", "b"])
    counter.add(np.zeros(count, np.int64), areas)
    row, absent = counter.rows(0.5)
    assert (row.count, row.share, row.per_mm2) == (count, 1.0, count / 0.5)
    assert row.mean_um2 == pytest.approx(areas.mean(), rel=1e-6)
    assert row.area_share_of_tissue == pytest.approx(areas.sum() / 0.5e6, rel=1e-6)
    assert row.quantiles_um2 == tuple(np.quantile(areas, QUANTILES))
    assert absent.count == 0
    assert np.isnan(absent.mean_um2)


def test_nothing_at_all_divides_by_nothing() -> None:
    (row,) = ClassCounter(["a"]).rows(0.0)
    assert row.count == 0
    assert all(np.isnan(v) for v in (row.share, row.per_mm2, row.mean_um2, *row.quantiles_um2))
