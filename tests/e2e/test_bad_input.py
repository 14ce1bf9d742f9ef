"""Bad input is named and explained, has the documented exit code, and never costs the other slides."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e.command import answers, wsi_nuc

# What becomes of every file of the folder of edge cases; a new file there fails until it is listed.
EDGE = {
    "boxes.tiff": "failed",
    "boxes_0.dcm": "empty",
    "broken.svs": "failed",
    "small.svs": "empty",
    "unopenable.tiff": "failed",
    "unreadable.svs": "failed",
    "yb10kx5k.zstd.tiff": "failed",
}


def test_a_bad_slide_costs_only_itself(small: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.svs"
    text.write_text("not a slide")
    truncated = tmp_path / "truncated.svs"
    truncated.write_bytes(small.read_bytes()[:5000])
    missing, folder = tmp_path / "missing.svs", tmp_path / "folder"
    folder.mkdir()
    pipe = tmp_path / "pipe.svs"
    os.mkfifo(pipe)
    bad = [text, truncated, missing, folder, pipe]
    done = wsi_nuc("run", *bad, small, "--out", tmp_path / "out", "--scheduler", "serial", "--json")
    assert done.returncode == 3
    by_name = {Path(answer["slide"]).name: answer for answer in answers(done)}
    assert by_name["small.svs"]["status"] == "published"
    for path in bad:
        assert by_name[path.name]["status"] == "failed"
        assert str(path) in by_name[path.name]["error"]
        assert not (tmp_path / "out" / f"{path.name}.zarr").exists()
    assert "5 of 6 slides failed" in done.stderr


@pytest.mark.real_data
def test_every_edge_file_is_published_or_named(wsi: Path, tmp_path: Path) -> None:
    slides = sorted((wsi / "edge").iterdir())
    done = wsi_nuc("run", *slides, "--out", tmp_path, "--scheduler", "serial", "--json")
    by_name = {Path(answer["slide"]).name: answer for answer in answers(done)}
    assert {name: answer["status"] for name, answer in by_name.items()} == EDGE
    for name, answer in by_name.items():
        assert bool(answer["error"]) == (answer["status"] == "failed")
        assert (tmp_path / f"{name}.zarr").exists() == (answer["status"] == "empty")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_the_same_slide_again_is_verified_not_repeated(small: Path, tmp_path: Path) -> None:
    arguments = ("run", small, small, "--out", tmp_path, "--scheduler", "serial", "--json")
    first, second = answers(wsi_nuc(*arguments)), answers(wsi_nuc(*arguments))
    assert [answer["status"] for answer in first] == ["published", "verified"]
    assert [answer["status"] for answer in second] == ["verified", "verified"]


@pytest.mark.parametrize("text", ["{", "{}", '{"type": "Point", "coordinates": [1, 2]}', "[]"])
@pytest.mark.parametrize("option", ["--tissue", "--roi"])
def test_an_unusable_geojson_is_named(option: str, text: str, small: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.geojson"
    file.write_text(text)
    done = wsi_nuc("run", small, "--out", tmp_path / "out", "--scheduler", "serial", option, file)
    assert done.returncode in (2, 3)
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.zarr"))


def _square(path: Path, x: float, y: float, edge: float) -> Path:
    ring = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


def test_a_region_of_interest_bounds_the_nuclei(small: Path, tmp_path: Path) -> None:
    import geopandas

    inside = _square(tmp_path / "inside.geojson", 200, 200, 300)
    done = wsi_nuc("run", small, "--out", tmp_path / "out", "--scheduler", "serial", "--roi", inside, "--json")
    assert done.returncode == 0, done.stderr
    (answer,) = answers(done)
    nuclei = geopandas.read_parquet(Path(answer["store"]) / "shapes/nuclei/shapes.parquet")
    assert len(nuclei) > 0
    assert nuclei.geometry.intersects(
        geopandas.read_file(inside).geometry.set_crs(None, allow_override=True)[0].buffer(20)
    ).all()
    assert answer["area_mm2"] <= (300 * 0.25 / 1000) ** 2 + 1e-9


def test_a_region_of_interest_off_the_slide_is_an_error(small: Path, tmp_path: Path) -> None:
    off = _square(tmp_path / "off.geojson", 90000, 90000, 100)
    done = wsi_nuc("run", small, "--out", tmp_path / "out", "--scheduler", "serial", "--roi", off)
    assert done.returncode == 3
    assert str(off) in done.stderr
    assert "level-0" in done.stderr


@pytest.mark.real_data
def test_a_slide_without_mpp_says_how_to_give_it(wsi: Path, tmp_path: Path) -> None:
    slide = wsi / "TCGA-CR-7395-01A-01-TS1.crop.svs"
    done = wsi_nuc("run", slide, "--out", tmp_path, "--scheduler", "serial")
    assert done.returncode == 3
    assert "--mpp" in done.stderr
    described = wsi_nuc("info", slide)
    assert described.returncode == 3
    assert "4443 x 3567" in described.stdout


def test_an_unknown_model_is_refused_before_any_slide_is_read(tmp_path: Path) -> None:
    done = wsi_nuc("run", tmp_path / "missing.svs", "--out", tmp_path, "--model", "clasical")
    assert done.returncode == 4
    assert "classical" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--set", "labls=1"), "labels"),
        (("--device", "gpu"), "device"),
        (("--device", "cuda:99"), "--device"),
        (("--scheduler", "tcp://192.0.2.1:8786"), "tls"),
        (("--reader", "opensldie"), "openslide"),
    ],
    ids=str,
)
def test_usage_errors(arguments: tuple[str, ...], hint: str, small: Path, tmp_path: Path) -> None:
    done = wsi_nuc("run", small, "--out", tmp_path, *arguments)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
