"""What a run publishes opens in the tools that its users have, and says what the slide holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.command import answers, manifest, wsi_nuc
from wsi_nuc.store.tables import probability_name
from wsi_nuc.synth import SynthSpec, truth_path, write_slide

CLASSES = ("epithelial", "inflammatory", "connective", "other")


@pytest.fixture(scope="module")
def answer(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("output")
    done = wsi_nuc("run", slide, "--out", out, "--labels", "--json", "--workers", 2)
    assert done.returncode == 0, done.stderr
    return answers(done)[0]


@pytest.fixture(scope="module")
def nuclei(answer: dict[str, Any]) -> Any:
    import geopandas

    return geopandas.read_parquet(Path(answer["store"]) / "shapes/nuclei/shapes.parquet")


def test_the_answer_has_all_it_promises(answer: dict[str, Any], slide: Path) -> None:
    keys = ["slide", "store", "status", "nuclei", "classes", "area_mm2", "usable_mm2", "tiles", "seconds", "error"]
    assert list(answer) == keys
    assert answer["usable_mm2"] == answer["area_mm2"]
    assert answer["slide"] == str(slide)
    assert sum(answer["classes"].values()) == answer["nuclei"] > 100
    assert tuple(answer["classes"]) == CLASSES
    assert sum(answer["tiles"].values()) == manifest(answer["store"])["tiles"]["total"]


def test_every_polygon_is_valid_inside_the_slide_and_described(nuclei: Any) -> None:
    assert nuclei.index.is_unique
    assert nuclei.geometry.is_valid.all()
    assert (nuclei.geometry.geom_type == "Polygon").all()
    x0, y0, x1, y1 = nuclei.total_bounds
    assert min(x0, y0) >= 0
    assert max(x1, y1) <= 2560
    assert set(nuclei["class"]) <= set(CLASSES)
    assert nuclei.score.between(0, 1).all()
    assert nuclei.prompt_score.between(0, 1).all()
    assert np.allclose(nuclei.area_um2, nuclei.geometry.area * 0.25**2, rtol=1e-5)
    assert np.allclose(nuclei.x, nuclei.geometry.centroid.x, atol=1e-3)
    assert nuclei.seam.any()


def test_spatialdata_reads_all_elements_together(answer: dict[str, Any], nuclei: Any) -> None:
    import spatialdata

    read = spatialdata.read_zarr(answer["store"])
    table = read["nuclei_table"]
    assert table.shape == (len(nuclei), len(CLASSES))
    assert list(table.var_names) == list(map(probability_name, CLASSES))
    assert np.allclose(np.asarray(table.X).sum(axis=1), 1, atol=1e-5)
    assert table.obs["id"].tolist() == nuclei.index.tolist()
    assert sum(row["count"] for row in read.attrs["wsi_nuc"]["classes"]) == len(nuclei)
    assert set(np.unique(read["nuclei_labels"]["scale0"]["image"].values)) - {0} <= set(nuclei.index)
    joined = spatialdata.join_spatialelement_table(
        read, spatial_element_names=["nuclei"], table_name="nuclei_table"
    )
    assert len(joined[1]) == len(nuclei)


def test_duckdb_counts_the_classes(answer: dict[str, Any]) -> None:
    import duckdb

    file = f"{answer['store']}/shapes/nuclei/shapes.parquet"
    rows = duckdb.sql(f"select class, count(*) from read_parquet('{file}') group by class").fetchall()
    assert dict(rows) == {name: count for name, count in answer["classes"].items() if count}


def test_most_of_what_was_drawn_is_found(slide: Path, nuclei: Any) -> None:
    """By position: a nucleus is found if the centroid of a result lies in it."""
    import geopandas
    import shapely

    truth = geopandas.read_parquet(truth_path(slide)).geometry.to_numpy()
    centres = shapely.points(nuclei.x, nuclei.y)
    hit = np.unique(shapely.STRtree(centres).query(truth, predicate="contains")[0])
    assert len(hit) >= 0.8 * len(truth)


def test_info_says_what_a_run_would_do(slide: Path) -> None:
    import json

    done = wsi_nuc("info", slide, "--json")
    assert done.returncode == 0
    described = json.loads(done.stdout)
    assert described["size_px"] == "2560 x 2560"
    assert described["mpp"] == 0.25
    assert described["mpp_source"] == "header"
    assert 0.3 < described["tissue_share"] <= 1
    assert "regions" in described["plan"]
    assert described["memory_mib"] > 0
    assert described["mpp_check"] == "plausible"


def test_info_doubts_a_header_that_cannot_be_true(tmp_path: Path) -> None:
    """The mpp in the header is four times the true one; --mpp settles it, --no-check does not ask."""
    import json

    slide = tmp_path / "wrong.svs"
    write_slide(slide, SynthSpec(size=1500, mpp=0.25, seed=1))
    right = slide.read_bytes()
    assert b"MPP = 0.2500" in right
    slide.write_bytes(right.replace(b"MPP = 0.2500", b"MPP = 1.0000"))
    doubted = wsi_nuc("info", slide, "--json")
    assert doubted.returncode == 0
    described = json.loads(doubted.stdout)
    assert described["mpp_check"] in ("doubtful", "impossible")
    assert described["mpp_implied"] < described["mpp"]
    assert "pass --mpp" in described["mpp_reason"]
    for settled in (("--mpp", 0.25), ("--no-check",)):
        assert "mpp_check" not in json.loads(wsi_nuc("info", slide, "--json", *settled).stdout)


def test_quiet_is_quiet(small: Path, tmp_path: Path) -> None:
    done = wsi_nuc("run", small, "--out", tmp_path, "--scheduler", "serial", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_slide_of_any_resolution_gives_nuclei_at_their_place(slide: Path, nuclei: Any, tmp_path: Path) -> None:
    """The same pixels called 0.3 um: still within the slide, on the same level-0 pixels."""
    import geopandas
    import shapely

    done = wsi_nuc("run", slide, "--out", tmp_path, "--scheduler", "serial", "--mpp", 0.3, "--json")
    assert done.returncode == 0, done.stderr
    (other,) = answers(done)
    rescaled = geopandas.read_parquet(Path(other["store"]) / "shapes/nuclei/shapes.parquet")
    near, distance = shapely.STRtree(rescaled.geometry.to_numpy()).query_nearest(
        shapely.points(nuclei.x, nuclei.y), return_distance=True, all_matches=False
    )
    assert len(near[0]) == len(nuclei)
    assert np.median(distance) == 0
    assert np.mean(distance < 4) > 0.9
