"""A results number is raised when results change, and only then; versions are compared with nothing."""

from __future__ import annotations

from copy import deepcopy

import pytest

from tests.results.fingerprints import OF, fingerprint
from tests.results.stored import load, verdict
from wsi_nuc.results import NUMBERS


@pytest.mark.parametrize("name", OF)
def test_results_are_those_that_the_number_stands_for(name: str) -> None:
    problem = verdict(name, load()[name], fingerprint(name), NUMBERS[name])
    assert not problem, problem


def test_every_number_stands_for_something() -> None:
    assert set(OF) == set(NUMBERS) == set(load())


def test_the_verdict_says_which_number_to_raise() -> None:
    stored = load()["pipeline"]
    now = deepcopy(stored["fingerprint"])
    now["manifest"]["counts"]["nuclei"] += 1
    same, number = stored["fingerprint"], stored["number"]
    assert verdict("pipeline", stored, same, number) == ""
    told = verdict("pipeline", stored, now, number)
    assert "/manifest/counts/nuclei: " in told
    assert "raise 'pipeline' in wsi_nuc/results.py (only this one if none of classical" in told
    assert "store what it stands for now" in verdict("pipeline", stored, now, number + 1)
    assert "put it back" in verdict("pipeline", stored, same, number + 1)


def test_last_bits_do_not_count_and_more_does() -> None:
    stored = load()["compact"]
    for factor, counts in ((1 + 1e-6, False), (1 + 1e-3, True)):
        now = deepcopy(stored["fingerprint"])
        now["masks"]["score"] = [value * factor for value in now["masks"]["score"]]
        assert bool(verdict("compact", stored, now, stored["number"])) == counts
