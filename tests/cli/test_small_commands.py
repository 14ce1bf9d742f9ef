"""`info` and `verify` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.slides.make import APERIO, svs
from tests.store.build import publish_store
from wsi_nuc.cli import app
from wsi_nuc.errors import SLIDES, STORAGE, USAGE

runner = CliRunner()


def described(path: Path, expected: int) -> dict[str, Any]:
    done = runner.invoke(app, ["info", str(path), "--json"])
    assert done.exit_code == expected, done.output
    info: dict[str, Any] = json.loads(done.stdout)
    return info


@pytest.mark.parametrize(("mpp", "remedy"), [("40", "pass --mpp"), ("0", "pass --mpp"), ("2.5", "--mpp")])
def test_info_shows_a_slide_that_cannot_be_run_and_says_why(mpp: str, remedy: str, tmp_path: Path) -> None:
    path = svs(tmp_path / "a.svs", APERIO.replace("MPP = 0.5", f"MPP = {mpp}"))
    info = described(path, SLIDES)
    assert info["size_px"] == "701 x 501"
    assert info["levels"].startswith("701 x 501")
    assert remedy in info["problem"]
    assert "plan" not in info


def test_info_of_a_good_slide_has_no_problem(tmp_path: Path) -> None:
    info = described(svs(tmp_path / "a.svs"), 0)
    assert info["problem"] == ""
    assert info["memory_mib"] > 0


def test_verify_tells_damage_from_what_never_was_a_result(tmp_path: Path) -> None:
    store = publish_store(tmp_path).path
    assert runner.invoke(app, ["verify", str(store)]).exit_code == 0
    stranger = runner.invoke(app, ["verify", str(store), str(tmp_path / "none")])
    assert stranger.exit_code == USAGE
    assert "is not a result of wsi-nuc" in stranger.stderr
    assert "damaged" not in stranger.stderr
    (store / "zarr.json").unlink()
    damaged = runner.invoke(app, ["verify", str(store), str(tmp_path / "none")])
    assert damaged.exit_code == STORAGE
    assert f"{store}: zarr.json is missing" in damaged.stderr
    assert "1 of 2 stores are damaged" in damaged.stderr


def test_on_windows_one_sentence_says_where_it_runs() -> None:
    code = "import sys; sys.platform = 'win32'; import wsi_nuc"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "wsi-nuc runs on Linux, macOS and WSL2: on Windows, install it inside of WSL2.\n"


def test_help_loads_nothing_that_takes_long() -> None:
    heavy = ("numpy", "shapely", "cv2", "torch", "pyarrow", "pydantic", "dask", "zarr", "wsi_nuc.run")
    code = f"import sys, wsi_nuc.cli; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
