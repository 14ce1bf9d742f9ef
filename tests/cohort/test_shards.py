"""Shares follow from the plan alone: every slide is in exactly one, and none has much more work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cohort.lists import row
from wsi_nuc.cohort.shards import TILES_PER_SLIDE, Only, Shard, rows_of, select
from wsi_nuc.cohort.state import State
from wsi_nuc.errors import UsageError


@given(st.lists(st.integers(0, 5000), max_size=60), st.integers(1, 12), st.randoms())
def test_shares_are_a_partition_balanced_to_within_the_largest_slide(
    tiles: list[int], count: int, random: object
) -> None:
    rows = [row(line, weight) for line, weight in enumerate(tiles, 1)]
    shares = [rows_of(Shard(index, count), rows) for index in range(1, count + 1)]
    assert sorted(planned.line for share in shares for planned in share) == [planned.line for planned in rows]
    loads = [sum(planned.tiles + TILES_PER_SLIDE for planned in share) for share in shares]
    largest = max((planned.tiles + TILES_PER_SLIDE for planned in rows), default=0)
    assert max(loads) - min(loads) <= largest
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = {planned.line for planned in rows_of(Shard(1, count), shuffled)}
    assert again == {planned.line for planned in shares[0]}


def test_what_cannot_run_is_in_exactly_one_share_too_and_spread_over_all() -> None:
    """Otherwise one job would have all of the work once the slides are mended and tried again."""
    rows = [row(line, problem="gone" if line > 3 else "") for line in range(1, 13)]
    shares = [rows_of(Shard(index, 3), rows) for index in (1, 2, 3)]
    assert sorted(planned.line for share in shares for planned in share) == list(range(1, 13))
    assert [sum(bool(planned.problem) for planned in share) for share in shares] == [3, 3, 3]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "4", "a/b", "1/2/3", "-1/4", "", "1.5/4"])
def test_what_is_not_a_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        Shard.parse(text)


def test_parts_are_chosen_by_any_column() -> None:
    slides = [State(row(1), "done"), State(row(2), "failed"), State(row(8), "failed")]
    assert [state.row.line for state in select(slides, [Only.parse("state=failed")])] == [2, 8]
    assert [state.row.line for state in select(slides, [Only.parse("patient=P1"), Only.parse("id=s?")])] == [1, 8]
    assert [state.row.line for state in select(slides, [Only.parse("id=s1"), Only.parse("id=s8")])] == [1, 8]
    three = [Only.parse(text) for text in ("state=failed", "state=refused", "id=s8")]
    assert [state.row.line for state in select(slides, three)] == [8]
    with pytest.raises(UsageError, match="no such column"):
        select(slides, [Only.parse("stage=II")])
    with pytest.raises(UsageError, match="no slide matches"):
        select(slides, [Only.parse("patient=P6*")])
    with pytest.raises(UsageError, match="is not like"):
        Only.parse("P1")
