"""DAB: a drawn slide whose nuclei are coloured brown, or not, is measured, counted and named as what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import skimage.data
from PIL import Image

from tests.cohort.lists import planned, write_list
from wsi_nuc.cohort.report import write_report
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.config import RunConfig
from wsi_nuc.counting.count import Question, count
from wsi_nuc.errors import UsageError
from wsi_nuc.executors.base import SerialExecutor
from wsi_nuc.features.dab import DEFAULT, calibrated, checked, density_of, vectors_of
from wsi_nuc.features.pixels import OD
from wsi_nuc.features.running import add_features, run_slides
from wsi_nuc.features.summary import slide_summary
from wsi_nuc.quality.describe import describe_slide
from wsi_nuc.rings import Rings
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import read
from wsi_nuc.synth import SynthSpec, truth_path, write_slide
from wsi_nuc.tissue.stain import LEAST_BROWN, brown_share
from wsi_nuc.types import Box, SlideRef, UInt8

SIZE, MPP = 640, 0.5
UNIT = [np.array(vector) / np.linalg.norm(vector) for vector in DEFAULT]
# Density of DAB in positive nuclei, and elsewhere.
BROWN, PALE = 0.9, 0.005


def recoloured(rgb: UInt8, positive: np.ndarray) -> UInt8:
    """A pale counterstain of haematoxylin where the picture is dark, and DAB in the `positive` pixels."""
    darkness = -np.log10((rgb.astype(np.float64).mean(axis=2) + 1) / 256)
    dab = np.where(positive, BROWN, PALE)
    od = 0.5 * darkness[..., None] * UNIT[0] + dab[..., None] * UNIT[1]
    return np.clip(np.rint(256 * 10**-od - 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn slide whose left half has brown nuclei, and beside it the slide as it was drawn."""
    path = tmp_path_factory.mktemp("dab") / "x.svs"
    write_slide(path, SynthSpec(size=SIZE, mpp=MPP, seed=4, tissue=1.0))
    source = open_slide(SlideRef(str(path)))
    rgb = source.read(0, Box(0, 0, SIZE, SIZE)).rgb
    source.close()
    nuclei = geopandas.read_parquet(truth_path(path))
    left = nuclei[nuclei.geometry.centroid.x < SIZE / 2]
    outlines = Rings.of_polygons(left.geometry.to_numpy())
    inside = outlines.fill(np.arange(1, len(left) + 1), Box(0, 0, SIZE, SIZE)) > 0
    brown = path.with_name("ihc.png")
    Image.fromarray(recoloured(rgb, inside)).save(brown)
    return brown


def run(slide: Path, out: Path, **options: Any) -> Path:
    config = RunConfig(out=out, scheduler="serial", model="classical", mpp=MPP, **options)
    (result,) = run_slides(config, [str(slide)])
    assert not result.error
    return Path(result.store)


@pytest.fixture(scope="module")
def store(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(slide, tmp_path_factory.mktemp("stores"), dab=True)


def test_brown_nuclei_are_positive_and_blue_ones_are_not(store: Path, tmp_path: Path) -> None:
    table = anndata.read_zarr(store / "tables/nuclei_table")
    dab = table.to_df()
    left = (table.obs["x"] < SIZE / 2 - 10).to_numpy()
    right = (table.obs["x"] > SIZE / 2 + 10).to_numpy()
    assert min(left.sum(), right.sum()) > 50
    assert (dab.dab_mean > 0.2)[left].mean() > 0.95
    assert (dab.dab_mean > 0.2)[right].mean() < 0.02
    assert dab.dab_max[left].median() == pytest.approx(BROWN, abs=0.1)
    assert (dab.dab_max >= dab.dab_mean).all()
    halves = [("left", shapely.box(0, 0, SIZE / 2, SIZE)), ("right", shapely.box(SIZE / 2, 0, SIZE, SIZE))]
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": {"name": name}}
        for name, shape in halves
    ]
    (tmp_path / "r.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    rows = count(store, Question(regions=tmp_path / "r.geojson", positive_above=0.2)).rows
    for row, name in zip(rows, ("left", "right"), strict=True):
        held = (table.obs["x"] < SIZE / 2) == (name == "left")
        assert (row["name"], row["nuclei"]) == (name, held.sum())
        assert row["positive"] == (dab.dab_mean[held] > 0.2).sum()
        of_class = held & (table.obs["class"] == "epithelial")
        assert row["positive_share_epithelial"] == pytest.approx((dab.dab_mean[of_class] > 0.2).mean())
    (whole,) = count(store, Question(positive_above=0.2)).rows
    summary, beside = slide_summary(store), pd.read_csv(store.with_name("ihc.png.classes.csv"), index_col="class")
    assert whole["positive_share"] == pytest.approx(summary["positive_share"])
    for name in ("epithelial", "connective"):
        assert whole[f"positive_share_{name}"] == pytest.approx(summary[f"positive_share_{name}"])
        assert beside.positive_share[name] == pytest.approx(summary[f"positive_share_{name}"])
    assert count(store, Question(positive_above=5.0)).rows[0]["positive"] == 0


def test_it_comes_with_a_later_call_too_and_is_never_lost(slide: Path, store: Path, tmp_path: Path) -> None:
    plain = run(slide, tmp_path)
    digest, execute = read(plain)["digest"], SerialExecutor(lambda: None).run
    place, ref = made_folder(tmp_path) / plain.name, SlideRef(str(slide), mpp=MPP)
    assert "dab_vectors" not in read(plain)["counts"]
    assert add_features(place, ref, execute, dab="default").manifest["digest"] == read(store)["digest"] != digest
    assert not add_features(place, ref, execute).new
    for options in ({}, {"features": True}, {"dab": True}):
        assert read(run(slide, tmp_path, **options))["digest"] == read(store)["digest"]
    own = read(run(slide, tmp_path, dab=True, dab_vectors="calibrated"))["counts"]["dab_vectors"]
    assert own != [list(vector) for vector in DEFAULT]
    assert np.abs(np.array(own) - UNIT).max() < 0.05


def test_a_brown_slide_is_named_and_a_pink_one_is_not(slide: Path, store: Path, tmp_path: Path) -> None:
    pink = slide.with_name("x.svs")
    assert describe_slide(str(slide), "classical", mpp=MPP, check=False)["brown_share"] >= LEAST_BROWN
    assert describe_slide(str(pink), "classical", check=False)["brown_share"] < LEAST_BROWN / 4
    listed = write_list(tmp_path / "l.csv", "slide,id,mpp", f"{slide},ihc,{MPP}", f"{pink},he,")
    folder, plan = planned(tmp_path / "cohort", listed)
    named = ["immunohistochemistry" in " ".join(row.facts.warnings) for row in plan.rows if row.facts]
    assert named == [True, False]
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    assert read(folder.store("ihc"))["run"]["stain"].startswith("immunohistochemistry: ")
    assert "stain" not in read(folder.store("he"))["run"]
    write_report(folder)
    assert folder.report.read_text().count("it looks like immunohistochemistry") == 1


def test_vectors_come_from_the_colours_of_a_real_slide() -> None:
    """A pixel of each stain of scikit-image's picture has, by its own vectors, that stain alone."""
    rgb = skimage.data.immunohistochemistry()
    assert brown_share(rgb) > 0.5
    first, second = calibrated(rgb)
    # Red, green and blue: haematoxylin absorbs red as much as green, DAB blue most.
    assert first[0] > first[2]
    assert second[2] > second[1] > second[0]
    assert np.degrees(np.arccos(np.dot(second, UNIT[1]))) < 12
    assert np.degrees(np.arccos(np.dot(first, UNIT[0]))) < 12


@pytest.mark.parametrize("vectors", [DEFAULT, ((0.6, 0.7, 0.3), (0.3, 0.5, 0.8))])
def test_the_density_is_what_was_drawn(vectors: Any) -> None:
    unit = [np.array(vector) / np.linalg.norm(vector) for vector in vectors]
    od = 0.4 * unit[0] + np.linspace(0, 1, 11)[:, None] * unit[1]
    rgb = np.rint(256 * 10**-od - 1).astype(np.uint8)[None]
    assert density_of(rgb, vectors)[0] * OD == pytest.approx(np.linspace(0, 1, 11), abs=0.02)


def test_a_picture_without_two_stains_gives_the_default_vectors() -> None:
    assert calibrated(np.full((64, 64, 3), 255, np.uint8)) == DEFAULT
    assert calibrated(np.tile(np.array([120, 60, 140], np.uint8), (64, 64, 1))) == DEFAULT


def test_vectors_that_a_user_names() -> None:
    assert checked("0.65, .7,0.29,0.27,0.57,0.78") == "0.65,0.7,0.29,0.27,0.57,0.78"
    assert vectors_of("0.65,0.7,0.29,0.27,0.57,0.78", list) == ((0.65, 0.7, 0.29), (0.27, 0.57, 0.78))
    for wrong in ("qupath", "1,2,3", "1,0,0,2,0,0", "nan,0,0,1,0,0", "0,0,0,1,0,0"):
        with pytest.raises(UsageError, match="six numbers"):
            checked(wrong)
