"""Work that is left and bad slides have different codes, so a script can repeat a command until work is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.cohort.lists import row
from wsi_nuc.cli import app, stopping
from wsi_nuc.cohort import records
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, save
from wsi_nuc.cohort.state import DONE, FAILED, PENDING, REFUSED, State, exit_code
from wsi_nuc.errors import INTERRUPTED, MODEL, OK, SLIDES, STORAGE, USAGE

ANY = st.lists(
    st.one_of(
        st.sampled_from([(DONE, OK), (PENDING, OK), (REFUSED, SLIDES), (REFUSED, USAGE), (REFUSED, MODEL)]),
        st.sampled_from([(FAILED, SLIDES), (FAILED, STORAGE), (FAILED, MODEL), (FAILED, USAGE)]),
    ),
    max_size=8,
)


@given(ANY)
def test_the_code_says_whether_work_is_left_and_else_whether_slides_are_bad(kinds: list[tuple[str, int]]) -> None:
    slides = [State(row(line), state, exit_code=code) for line, (state, code) in enumerate(kinds)]
    bad = [slide for slide in slides if slide.state == REFUSED or slide.exit_code == SLIDES]
    rest = [slide for slide in slides if slide not in bad]
    code, allowed = exit_code(slides), exit_code(slides, allow_failed=True)
    assert (code == OK) == all(slide.state == DONE for slide in slides)
    assert allowed == exit_code(rest)
    if any(slide.exit_code == STORAGE for slide in slides):
        assert code == STORAGE
    elif any(slide.state == PENDING for slide in slides):
        assert code == INTERRUPTED
    elif bad:
        assert code == SLIDES


def _cohort(root: Path, failed: str = "") -> CohortFolder:
    """One slide that is pending or failed, and one that the plan refused."""
    folder = CohortFolder(root)
    plan = Plan({"model": "classical"}, (row(1), row(2, problem="does not exist")))
    save(folder, plan, overwrite=False)
    if failed:
        folder.records.mkdir()
        key = plan.key(plan.rows[0])
        records.write(folder, records.Record("s1", key, FAILED, error=failed, exit_code=SLIDES))
    return folder


@pytest.mark.parametrize("command", ["status", "collect"])
def test_bad_slides_end_nothing_once_they_are_allowed(command: str, tmp_path: Path) -> None:
    def code(folder: CohortFolder, *options: str) -> int:
        return CliRunner().invoke(app, ["cohort", command, str(folder.root), *options]).exit_code

    unfinished, finished = _cohort(tmp_path / "a"), _cohort(tmp_path / "b", failed="is truncated")
    assert [code(unfinished), code(unfinished, "--allow-failed")] == [INTERRUPTED, INTERRUPTED]
    assert [code(finished), code(finished, "--allow-failed")] == [SLIDES, OK]


def test_a_job_with_nothing_but_bad_slides_ends_well_where_they_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_raise_on_signals", lambda needed: None)
    folder = _cohort(tmp_path, failed="is truncated")
    call = ["cohort", "run", str(folder.root), "--quiet"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == SLIDES
    assert "is truncated" in result.stderr
    assert CliRunner().invoke(app, [*call, "--allow-failed"]).exit_code == OK
