"""`export` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.exporting.build import known_store
from wsi_nuc.cli import app
from wsi_nuc.errors import INTERRUPTED, STORAGE, USAGE, UsageError
from wsi_nuc.exporting.registry import FORMATS

runner = CliRunner()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return known_store(tmp_path / "results")


def run(*words: object) -> list[str]:
    done = runner.invoke(app, ["export", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.splitlines()


def test_it_says_what_it_wrote_and_how_many_nuclei_are_in_it(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.geojson"
    call = (store, "--to", "qupath", "--out", out, "--class", "stroma", "--class", "immune")
    assert run(*call, "--box", "0,0,50,50", "--columns", "solidity,prob*") == [f"{out}: 1 nuclei"]
    (nucleus,) = json.loads(out.read_text())["features"]
    measured = nucleus["properties"]["measurements"]
    assert {"solidity", "probability_immune"} <= measured.keys()
    assert "h_mean_od" not in measured
    assert run(*call, "--min-score", "0.95", "--columns", "none", "--overwrite") == [f"{out}: 0 nuclei"]


def test_several_stores_go_into_a_folder_under_the_names_of_their_slides(store: Path, tmp_path: Path) -> None:
    other = store.rename(store.with_name("y.svs.zarr"))
    again = known_store(store.parent)
    out = tmp_path / "tables"
    assert run(other, again, "--to", "csv", "--out", out) == [
        f"{out}/y.svs.csv: 3 nuclei",
        f"{out}/x.svs.csv: 3 nuclei",
    ]
    assert sorted(path.name for path in out.iterdir()) == ["x.svs.csv", "y.svs.csv"]


def test_a_damaged_store_is_named_and_the_others_are_exported(store: Path, tmp_path: Path) -> None:
    other, out = store.rename(store.with_name("y.svs.zarr")), tmp_path / "tables"
    (other / "manifest.json").unlink()
    again = known_store(store.parent)
    done = runner.invoke(app, ["export", str(other), str(again), "--to", "csv", "--out", str(out)])
    assert done.exit_code == STORAGE
    assert done.stdout.splitlines() == [f"{out}/x.svs.csv: 3 nuclei"]
    assert f"{other}/manifest.json: is missing" in done.stderr
    assert [path.name for path in out.iterdir()] == ["x.svs.csv"]


def test_a_stop_leaves_nothing_half_written(store: Path, tmp_path: Path) -> None:
    """In a process of its own, which gets SIGTERM while it writes."""
    out = tmp_path / "out"
    code = (
        "import os, signal, sys; from wsi_nuc.store import durable; from wsi_nuc.cli import main\n"
        "durable.before = lambda call, path: call == 'write' and os.kill(os.getpid(), signal.SIGTERM)\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "export", str(store), "--to", "csv", "--out", str(out / "cells.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == INTERRUPTED
    assert "stopped by SIGTERM. Finished files are kept" in done.stderr
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "qpath"), "did you mean qupath"),
        (("--to", "csv", "--box", "1,2,3"), "is not four numbers"),
        (("--to", "csv", "--box", "5,5,1,1"), "encloses nothing"),
        (("--to", "csv", "--class", "stromal"), "did you mean stroma"),
        (("--to", "csv", "--columns", "solidty"), "did you mean solidity"),
    ],
)
def test_a_slip_is_met_before_anything_is_written(
    words: tuple[str, ...], said: str, store: Path, tmp_path: Path
) -> None:
    call = ["export", str(store), "--out", str(tmp_path / "out" / "cells"), *words]
    done = runner.invoke(app, call)
    assert said in (str(done.exception) + done.stderr).lower()
    assert isinstance(done.exception, UsageError) or done.exit_code == USAGE
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_format() -> None:
    shown = runner.invoke(app, ["export", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).stdout
    assert f"One of {', '.join(FORMATS)}." in shown
