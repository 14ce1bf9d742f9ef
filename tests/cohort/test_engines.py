"""Workflow engines: Snakemake runs a cohort with bad slides to its end, and then has almost nothing left to do."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer

from tests.cohort.lists import write_list
from wsi_nuc.cli import app

PIPELINES = Path(__file__).parents[2] / "pipelines"


def _snakemake(place: Path, *more: str) -> str:
    journal = place / "journal"
    config = {
        "slides": place / "list.csv",
        "cohort": place / "a cohort",
        "shares": 2,
        "threads": 1,
        "program": f"{shlex.quote(sys.executable)} -m wsi_nuc",
        "planning": "--model classical --scheduler serial",
        "running": f"--scheduler serial --journal {shlex.quote(str(journal))}",
    }
    call = [sys.executable, "-m", "snakemake", "-s", PIPELINES / "snakemake" / "Snakefile", "--cores", "1", *more]
    given = [f"{key}={value}" for key, value in config.items()]
    done = subprocess.run(
        [*map(str, call), "--config", *given], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_snakemake_goes_on_past_bad_slides_and_computes_nothing_twice(slides: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(slides[0].read_bytes()[:4000])
    write_list(tmp_path / "list.csv", "slide,id", f"{slides[0]},a", f"{broken},broken", "missing.svs,missing")
    _snakemake(tmp_path)
    cohort, journal = tmp_path / "a cohort", tmp_path / "journal"
    table = pd.read_parquet(cohort / "cohort.parquet")
    assert dict(zip(table.id, table.state, strict=True)) == {
        "a": "done",
        "broken": "refused",
        "missing": "refused",
    }
    assert (cohort / "report.html").stat().st_size
    regions = journal.read_text()
    assert regions
    # Another list is planned and run anew, and slides that are done stay done.
    write_list(tmp_path / "list.csv", "slide,id", f"{slides[0]},a", f"{slides[1]},b")
    said = _snakemake(tmp_path)
    assert "looked at 2 of 2 slides (1 of them earlier)" in said
    table = pd.read_parquet(cohort / "cohort.parquet")
    assert dict(zip(table.id, table.state, strict=True)) == {"a": "done", "b": "done"}
    added = journal.read_text().removeprefix(regions)
    assert "a.svs" not in added
    assert "b.svs" in added
    assert "Nothing to be done" in _snakemake(tmp_path)


@pytest.mark.parametrize("process", ["plan", "share", "tables"])
def test_nextflow_calls_commands_as_they_are(process: str) -> None:
    """Nobody has run the file yet, but the commands that it calls exist and have these options."""
    text = (PIPELINES / "nextflow" / "main.nf").read_text()
    (script,) = re.findall(rf'process {process} \{{.*?"""\n(.*?)"""', text, re.DOTALL)
    group = typer.main.get_command(app).commands["cohort"]  # type: ignore[attr-defined]
    for line in script.strip().splitlines():
        words = re.sub(r"\$\{params\.(planning|running)\}", "", line)
        program, cohort, name, *arguments = shlex.split(re.sub(r"\$\{[^}]*\}", "1", words))
        assert (program, cohort) == ("1", "cohort")
        # Parsing does not call the command; an unknown option is refused.
        assert group.commands[name].make_context(name, arguments).params
