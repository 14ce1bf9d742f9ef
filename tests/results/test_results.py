"""A results number is raised when results change, and only then; versions are compared with nothing."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

import wsi_nuc
from tests.results.fingerprints import OF, fingerprint
from tests.results.inputs import slide
from tests.results.stored import load, verdict
from wsi_nuc.cohort.plan import Plan, PlanRow
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK, USAGE
from wsi_nuc.results_numbers import NUMBERS
from wsi_nuc.run.session import run_session
from wsi_nuc.run.success_or_failure import SlideResult


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
    message = verdict("pipeline", stored, now, number)
    assert "/manifest/counts/nuclei: " in message
    assert "raise 'pipeline' in wsi_nuc/results_numbers.py (only this one if none of classical" in message
    assert "store what it stands for now" in verdict("pipeline", stored, now, number + 1)
    assert "put it back" in verdict("pipeline", stored, same, number + 1)


def test_last_bits_do_not_count_and_more_does() -> None:
    stored = load()["compact"]
    for factor, counts in ((1 + 1e-6, False), (1 + 1e-3, True)):
        now = deepcopy(stored["fingerprint"])
        shape, score = now["masks"]["score"]
        now["masks"]["score"] = [shape, [value * factor for value in score]]
        assert bool(verdict("compact", stored, now, stored["number"])) == counts


def run(folder: Path) -> SlideResult:
    config = RunConfig(out=folder / "out", model="classical", scheduler="serial", mpp=0.4)
    (result,) = run_session(config, [str(slide(folder / "slide.png"))])
    return result


def test_another_version_goes_on_and_another_number_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, row = Plan({"model": "classical"}, ()), PlanRow(2, "a", "a.svs")
    key = plan.key(row)
    assert run(tmp_path).status == "published"
    monkeypatch.setattr(wsi_nuc, "__version__", "9.9.9")
    assert run(tmp_path).status == "verified"
    assert plan.key(row) == key
    for name, place in (("pipeline", "pipeline"), ("classical", "model")):
        with monkeypatch.context() as raised:
            before = NUMBERS[name]
            raised.setitem(NUMBERS, name, before + 1)
            refused = run(tmp_path)
            assert refused.exit_code == USAGE
            assert f"results.{place}: {before} -> {before + 1}" in refused.error
            assert plan.key(row) != key
    assert run(tmp_path).exit_code == OK
