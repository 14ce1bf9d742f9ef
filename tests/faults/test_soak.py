"""The soak is the same for a seed, and goes on after the seeds of earlier calls."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak import go_on, reports_of, sums
from benchmarks.soak_run import BLOWS, GIVEN_SHARE, KILL, Report, Scene, blows_of


def test_a_seed_says_what_befalls_its_run() -> None:
    assert blows_of(7, 10.0) == blows_of(7, 10.0)
    runs = [blows_of(seed, 10.0) for seed in range(1, 101)]
    assert 0 < sum(given for given, _ in runs) < 2 * GIVEN_SHARE * len(runs)
    blows = [blow for _, chosen in runs for blow in chosen]
    assert len(blows) == BLOWS * len(runs)
    assert {blow.who for blow in blows} == {"main", "worker", "nanny", "scheduler"}
    assert {blow.number for blow in blows} == {KILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGSTOP}
    assert all(0 <= blow.after_s <= 5.0 for blow in blows)
    # The goal: five kills for a stop.
    assert sum(blow.number != KILL for blow in blows) >= len(blows) / 6


def test_a_call_continues_after_the_last_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(seed: int, scene: Scene, place: Path) -> Report:
        blows = Counter({"SIGKILL worker": 2, "SIGTERM main": 1})
        return Report(seed, False, blows, Counter({"0": 1}), ["x is lost"] if seed == 3 else [])

    monkeypatch.setattr(soak, "set_scene", lambda place: Scene((), {}, 1.0))
    monkeypatch.setattr(soak, "one_run", quick)
    results = tmp_path / "bench-results" / "soak.jsonl"
    assert [report.seed for report in go_on(results, runs=2)] == [1, 2]
    assert [report.seed for report in go_on(results, runs=3)] == [1, 2, 3, 4, 5]
    rows = {row.what: row for row in sums(reports_of(results))}
    assert rows["kills in 5 runs"].value == 10
    assert rows["stops"].value == 5
    wrong = rows["slides lost, doubled or falsely done"]
    assert (wrong.value, wrong.ok) == (1, False)
