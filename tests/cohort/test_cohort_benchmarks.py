"""The benchmarks of large cohorts, with a few slides: their code is sound, and what is no matter of time holds."""

from __future__ import annotations

import math

import pytest

from benchmarks import cohort, cohort_plan


@pytest.mark.slow
def test_status_tables_and_report_are_measured() -> None:
    rows = {row.what: row.value for row in cohort.measure(slides=12)}
    assert len(rows) == 10
    assert all(math.isfinite(value) and value > 0 for value in rows.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plan_that_is_stopped_loses_no_look() -> None:
    rows = cohort_plan.measure(24, "--model", "classical", "--scheduler", "serial")
    assert {row.what: row.value for row in rows if "lost" in row.what} == {
        "plan of 24 slides with 2 workers and one stop, looks lost": 0
    }
    assert all(math.isfinite(row.value) for row in rows)
