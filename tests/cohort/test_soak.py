"""A small cohort under fire. `benchmarks/cohort_soak.py` does the same with two hundred slides."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cohort_soak import soak


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_kills_among_two_jobs_do_not_show(tmp_path: Path) -> None:
    got = soak(tmp_path, slides=12, bad=4, kills=5, shards=2, size=1280)
    assert got.wrong == []
    assert got.kills == 5
    # A kill costs at most the region that its job was in.
    assert got.cut_off <= got.kills
    assert got.twice <= got.kills
