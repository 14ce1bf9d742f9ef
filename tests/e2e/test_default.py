"""The model that comes with the package."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from tests.e2e.command import answers, digest, manifest, wsi_nuc
from wsi_nuc.models.compact.packaged import DEFAULT, PACKAGED, checkpoint_of
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.synth import truth_path


@pytest.fixture(scope="module")
def result(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("default")
    done = wsi_nuc("run", slide, "--out", out, "--scheduler", "serial", "--model", "default", "--json")
    assert done.returncode == 0, done.stderr
    return Path(answers(done)[0]["store"])


def test_it_is_what_run_uses_when_nobody_says_otherwise(small: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wsi_nuc", "run", small, "--out", tmp_path, "--scheduler", "serial", "--json"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240, check=True)
    store = json.loads(done.stdout)["store"]
    assert manifest(store)["made_from"]["config"]["model"] == "default"
    assert manifest(store)["made_from"]["weights_sha256"] == DEFAULT.sha256


def test_workers_and_the_plain_loop_give_the_same_bytes(slide: Path, result: Path, tmp_path: Path) -> None:
    done = wsi_nuc("run", slide, "--out", tmp_path, "--workers", 2, "--model", "default", "--region-size", 900)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / result.name) == digest(result)


def test_most_nuclei_of_a_slide_are_found_where_they_are(slide: Path, result: Path) -> None:
    """Painted tissue is not what it was trained on, but a nucleus is a nucleus."""
    nuclei = geopandas.read_parquet(result / "shapes" / "nuclei" / "shapes.parquet")
    truth = geopandas.read_parquet(truth_path(slide))
    inside = np.zeros(len(truth), np.bool_)
    rows, _ = shapely.STRtree(nuclei.geometry.to_numpy()).query(
        truth.geometry.centroid.to_numpy(), predicate="within"
    )
    inside[rows] = True
    assert inside.mean() > 0.5
    assert nuclei.score.between(0, 1).all()
    assert nuclei.predicted_iou.between(0, 1).all()
    assert set(nuclei["class"].unique()) <= set(load_model("default").spec.classes)


def test_a_blank_slide_is_empty(blank: Path, tmp_path: Path) -> None:
    done = wsi_nuc("run", blank, "--out", tmp_path, "--scheduler", "serial", "--model", "default", "--json")
    assert done.returncode == 0, done.stderr
    assert answers(done)[0]["status"] == "empty"


@pytest.mark.slow
@pytest.mark.real_data
def test_fluorescence_is_reported_as_unlike_the_training_images(wsi: Path, tmp_path: Path) -> None:
    (slide,) = wsi.glob("*.ndpi")
    done = wsi_nuc("run", slide, "--out", tmp_path, "--scheduler", "serial", "--model", "default", "--json")
    assert done.returncode == 0, done.stderr
    assert "fluorescence" in done.stderr
    noted = manifest(answers(done)[0]["store"])["counts"]["unlike_training_images"]
    assert noted or answers(done)[0]["nuclei"] == 0


def test_they_are_small_and_planning_reads_their_headers_only() -> None:
    sizes = {
        name: sum(math.prod(shape) for shape in checkpoint_of(name).info.shapes.values()) for name in PACKAGED
    }
    assert sizes["default"] < 4e6
    assert 5e6 < sizes["large"] < 14e6
    assert all(model.file.stat().st_size < 30e6 for model in PACKAGED.values())
    script = (
        "import sys, wsi_nuc.models.registry as r; [r.model_spec(n) for n in sys.argv[1:]]; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, *PACKAGED], check=True, timeout=60)


def test_the_first_default_model_goes_on_by_its_name(small: Path, tmp_path: Path) -> None:
    done = wsi_nuc("run", small, "--out", tmp_path, "--scheduler", "serial", "--model", "default-1", "--json")
    assert done.returncode == 0, done.stderr
    assert manifest(answers(done)[0]["store"])["made_from"]["weights_sha256"] == PACKAGED["default-1"].sha256


def test_the_large_model_finds_the_same_kind_of_nuclei_and_more_right_ones(small: Path, tmp_path: Path) -> None:
    """On painted tissue: more of what was drawn than half, in the same classes as the default model."""
    done = wsi_nuc("run", small, "--out", tmp_path, "--scheduler", "serial", "--model", "large", "--json")
    assert done.returncode == 0, done.stderr
    answer = answers(done)[0]
    nuclei = geopandas.read_parquet(Path(answer["store"]) / "shapes" / "nuclei" / "shapes.parquet")
    assert len(nuclei) == answer["nuclei"] > 0
    assert set(nuclei["class"].unique()) <= set(model_spec("default").classes)
    truth = geopandas.read_parquet(truth_path(small))
    rows, _ = shapely.STRtree(nuclei.geometry.to_numpy()).query(
        truth.geometry.centroid.to_numpy(), predicate="within"
    )
    assert len(np.unique(rows)) > len(truth) / 2


def test_every_image_that_a_packaged_model_learned_from_is_named_in_the_notice() -> None:
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    names = {"consep": "CoNSeP", "nuinsseg": "NuInsSeg", "nuinsseg_binary": "NuInsSeg", "nucls15": "NuCLS",
             "dsb2018_colour": "2018 Data Science Bowl", "brca_m2c": "BRCA-M2C"}  # fmt: skip
    for name in PACKAGED:
        for source in checkpoint_of(name).info.details["training_data"]:
            assert source["trains_released"]
            assert names[source["name"]] in notice


@pytest.mark.parametrize("name", PACKAGED)
def test_a_card_says_what_a_model_is_for_and_everything_that_it_learned_from_may_be_released(name: str) -> None:
    done = wsi_nuc("models", "show", name)
    assert done.returncode == 0, done.stderr
    assert "research use only" in done.stdout.lower()
    shown = json.loads(wsi_nuc("models", "show", name, "--json").stdout)
    assert shown["sha256"] == PACKAGED[name].sha256
    assert all(source["trains_released"] for source in shown["training_data"])
    assert tuple(shown["classes"]) == model_spec(name).classes


@pytest.mark.slow
def test_a_scan_at_10x_is_enlarged_and_that_is_said(small: Path, tmp_path: Path) -> None:
    done = wsi_nuc("run", small, "--out", tmp_path, "--model", "default", "--mpp", 1.0, "--report", "--json")
    assert done.returncode == 0, done.stderr
    store = Path(answers(done)[0]["store"])
    assert "enlarged 4 times" in manifest(store)["run"]["enlarged"]
    assert "enlarged 4 times" in done.stderr
    (page,) = tmp_path.glob("*.report.html")
    assert "enlarged 4 times" in page.read_text(encoding="utf-8")
