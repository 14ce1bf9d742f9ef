"""`synth` from the command line."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from wsi_nuc.cli import app
from wsi_nuc.errors import UsageError

runner = CliRunner()


def test_synth_says_in_one_sentence_what_it_wrote_and_where(tmp_path: Path) -> None:
    slide = tmp_path / "a.svs"
    call = ["synth", str(slide), "--size", "512", "--seed", "3"]
    done = runner.invoke(app, call, catch_exceptions=False)
    assert done.exit_code == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{slide}: 0.")
    assert line.endswith(f"outlines are in {slide}.truth.parquet")
    counts = line.partition("nuclei (")[2].partition(")")[0].split(", ")
    assert [count.split()[1] for count in counts] == ["epithelial", "inflammatory", "connective", "other"]
    total = int(line.partition(", with ")[2].partition(" ")[0])
    assert sum(int(count.split()[0]) for count in counts) == total > 0

    refused = runner.invoke(app, call).exception
    assert isinstance(refused, UsageError)
    assert "--overwrite" in refused.remedy
    assert runner.invoke(app, [*call, "--overwrite"], catch_exceptions=False).stdout == done.stdout
