"""Rows 17 and 32: a result is never replaced by one with other settings, and always where it is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.faults.one_run import NAME, assert_told, digest_of, run_one
from wsi_nuc.cli import app
from wsi_nuc.errors import OK, STORAGE, USAGE
from wsi_nuc.synth import SynthSpec, write_slide

VICTIMS = ("shapes/nuclei/shapes.parquet", "tables/nuclei_table/X/c.0.0", "zarr.json", "manifest.json")


def test_row_17_same_output_other_settings(slide: Path, undisturbed: str, in_memory: Path) -> None:
    run_one(slide, in_memory)
    refused = run_one(slide, in_memory, labels=True, stitch={"iou": 0.4})
    assert_told(refused, USAGE, "config.labels: False -> True", "config.stitch.iou: 0.5 -> 0.4", "--overwrite")
    assert digest_of(in_memory) == undisturbed
    assert run_one(slide, in_memory, labels=True, overwrite=True).exit_code == OK
    assert digest_of(in_memory) not in ("", undisturbed)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blank") / "blank.svs"
    write_slide(path, SynthSpec(size=512, mpp=0.5, seed=1, blank=True))
    return path


@pytest.fixture(scope="module")
def both(slide: Path, blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with the results of two slides."""
    out = tmp_path_factory.mktemp("both")
    assert [run_one(path, out).exit_code for path in (slide, blank)] == [OK, OK]
    return out


@pytest.mark.parametrize("how", ["deleted", "flipped"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_row_32_published_file_deleted_or_flipped(
    slide: Path, blank: Path, undisturbed: str, both: Path, in_memory: Path, victim: str, how: str
) -> None:
    out = shutil.copytree(both, in_memory / "out")
    store, file = out / f"{NAME}.zarr", out / f"{NAME}.zarr" / victim
    data = bytearray(file.read_bytes())
    file.unlink()
    if how == "flipped":
        # The middle of the manifest is within the hash of a file.
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    verified = CliRunner().invoke(app, ["verify", str(store), str(out / "blank.svs.zarr")])
    assert verified.exit_code == STORAGE
    assert f"{store}: {victim} " in verified.stderr
    assert f"{out / 'blank.svs.zarr'}: verified" in verified.stdout
    assert [run_one(path, out).status for path in (slide, blank)] == ["published", "verified"]
    assert digest_of(out) == undisturbed
