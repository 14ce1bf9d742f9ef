"""A result in Python: what `open` and `segment` give is what the store holds, and nothing is left behind."""

from __future__ import annotations

import gc
import io
import tempfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

import wsi_nuc
from tests.features.build import made_from, publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.errors import ModelError, SlideError, StorageError, UsageError
from wsi_nuc.run.session import run_session
from wsi_nuc.store.manifest import read
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import Box, SlideRef, UInt8

SIZE, MPP = 640, 0.5


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "x.svs"
    write_slide(path, SynthSpec(size=SIZE, mpp=MPP, seed=2, tissue=1.0))
    return path


@pytest.fixture(scope="module")
def pixels(slide: Path) -> UInt8:
    source = wsi_nuc.open_slide(SlideRef(str(slide)))
    rgb = source.read(0, Box(0, 0, SIZE, SIZE)).rgb
    source.close()
    return rgb


@pytest.fixture(scope="module")
def result(slide: Path) -> wsi_nuc.Result:
    out = slide.parent / "results"
    return wsi_nuc.segment(slide, model="classical", out=out, workers=1, scheduler="serial", features=True)


@pytest.fixture
def empty_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_it_gives_what_the_store_holds(result: wsi_nuc.Result, slide: Path) -> None:
    opened = wsi_nuc.open(result.path)
    truth = geopandas.read_parquet(result.path / "shapes/nuclei/shapes.parquet")
    frame = opened.nuclei(columns=["h_mean", "prompt_score"])
    assert (frame.index == truth.index).all()
    assert frame.geometry.to_numpy().tolist() == truth.geometry.to_numpy().tolist()
    for name in ("class", "score", "x", "y", "area_um2", "prompt_score"):
        assert (frame[name].astype(str) == truth[name].astype(str).to_numpy()).all(), name
    assert (frame.h_mean == opened.features.h_mean).all()
    assert (
        opened.classes["count"].to_dict() == truth["class"].value_counts().reindex(opened.classes.index).to_dict()
    )
    assert opened.tissue.area.sum() == pytest.approx(SIZE**2, rel=0.3)
    assert (opened.slide["file"], opened.slide["mpp"], opened.slide["width_px"]) == (slide.name, MPP, SIZE)
    assert repr(opened).startswith(f"<x.svs.zarr: {len(truth):,} nuclei (")
    assert (slide.parent / "results" / "x.svs.classes.csv").exists()


def test_a_box_a_class_and_a_score_choose_nuclei(result: wsi_nuc.Result) -> None:
    every, box = result.nuclei(), (100.0, 50.0, 300.0, 400.0)
    chosen = result.nuclei(box, "epithelial", 0.5)
    wanted = (
        every.geometry.envelope.intersects(shapely.box(*box))
        & (every["class"] == "epithelial")
        & (every.score >= 0.5)
    )
    assert 0 < wanted.sum() < len(every)
    assert chosen.index.tolist() == every.index[wanted].tolist()
    assert len(result.nuclei(classes=["epithelial", "connective"])) > len(result.nuclei(classes="connective")) > 0
    none = result.nuclei((0, 0, 1, 1), min_score=1)
    assert (len(none), list(none.columns)) == (0, list(every.columns))
    with pytest.raises(UsageError, match="no such class"):
        result.nuclei(classes="tumour")


def test_row_groups_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", 7)
    store = wsi_nuc.open(publish_nuclei(tmp_path, nuclei(40)))
    assert store.nuclei().index.tolist() == list(range(1, 41))
    assert set(store.nuclei()["class"]) <= set(CLASSES)
    empty = wsi_nuc.open(publish_nuclei(tmp_path / "empty", nuclei(0), made=made_from(size=512)))
    assert (len(empty.nuclei()), len(empty.features)) == (0, 0)


def test_tiles_show_the_slide_around_nuclei(result: wsi_nuc.Result, pixels: UInt8) -> None:
    some = result.nuclei((200, 200, 400, 400)).iloc[:3]
    tiles = result.tiles(some, um=16, px=32)
    assert tiles.shape == (3, 32, 32, 3)
    for tile, x, y in zip(tiles, some.x, some.y, strict=True):
        x0, y0 = round(x - 16), round(y - 16)
        assert (tile == pixels[y0 : y0 + 32, x0 : x0 + 32]).all()
    corner = result.nuclei((0, 0, 12, SIZE)).iloc[:1]
    assert (result.tiles(corner, um=64, px=64)[0][:, :10] == 255).all(), "white beyond the slide"
    small = result.tiles(some, um=32, px=16)
    assert abs(small[0].mean() - result.tiles(some, um=32, px=64)[0].mean()) < 3


def test_the_picture_shows_nuclei_in_the_colours_of_their_classes(result: wsi_nuc.Result, pixels: UInt8) -> None:
    picture = result.picture(SIZE)
    assert picture.shape == (SIZE, SIZE, 3)
    changed = (picture != pixels).any(axis=2)
    inside = np.zeros((SIZE, SIZE), bool)
    for shape in result.nuclei().geometry:
        x0, y0, x1, y1 = (round(edge) for edge in shape.bounds)
        inside[max(y0 - 3, 0) : y1 + 3, max(x0 - 3, 0) : x1 + 3] = True
    assert 0.02 < changed.mean() < 0.5
    assert not changed[~inside].any()
    png = Image.open(io.BytesIO(result._repr_png_()))
    assert png.size == (800, 800)
    html = result._repr_html_()
    assert html.count("<img") == 1
    assert html.count("&#9632;") == 4
    assert result.picture(64).shape == (64, 64, 3)


def test_an_array_goes_through_the_same_pipeline_and_leaves_nothing(pixels: UInt8, empty_tmp: Path) -> None:
    with wsi_nuc.segment(pixels, mpp=MPP, model="classical", progress_bar=False) as of_array:
        assert empty_tmp in of_array.path.parents
        Image.fromarray(pixels).save(empty_tmp / "same.png")
        config = wsi_nuc.RunConfig(out=empty_tmp / "out", model="classical", mpp=MPP, scheduler="serial")
        (same,) = run_session(config, [str(empty_tmp / "same.png")])
        files = [read(Path(store))["files"] for store in (of_array.path, same.store)]
        for name in ("shapes/nuclei/shapes.parquet", "shapes/tissue/shapes.parquet"):
            assert files[0][name] == files[1][name]
        assert of_array.tiles(of_array.nuclei().iloc[:2]).shape == (2, 64, 64, 3)
    assert [path.name for path in empty_tmp.iterdir() if path.name.startswith("wsi-nuc-")] == []


def test_what_no_one_holds_any_more_is_removed(pixels: UInt8, empty_tmp: Path, tmp_path: Path) -> None:
    kept = wsi_nuc.segment(pixels[:256, :256], mpp=MPP, model="classical", out=tmp_path / "kept", tissue="none")
    gone = wsi_nuc.segment(pixels[:256, :256], mpp=MPP, model="classical", tissue="none")
    assert len(kept.nuclei()) == len(gone.nuclei()) > 0
    path = kept.path
    del kept, gone
    gc.collect()
    assert list(empty_tmp.iterdir()) == []
    again = wsi_nuc.open(path)
    assert len(again.nuclei()) > 0
    with pytest.raises(UsageError, match=r"its slide array.tif is not beside it"):
        again.tiles(again.nuclei().iloc[:1])
    assert again.picture().shape == (800, 800, 3), "the thumbnail serves"


def test_warnings_are_pythons_own(empty_tmp: Path) -> None:
    brown = np.full((300, 300, 3), (150, 110, 70), np.uint8)
    with pytest.warns(UserWarning, match="it looks like immunohistochemistry"):
        result = wsi_nuc.segment(brown, mpp=MPP, model="classical")
    assert len(result.nuclei()) == 0
    assert result.picture().shape == (800, 800, 3)


@pytest.mark.parametrize(
    ("given", "settings", "kind", "said"),
    [
        (np.zeros((4, 4), np.uint8), {"mpp": 1.0}, UsageError, "H x W x 3"),
        (np.zeros((4, 4, 3)), {"mpp": 1.0}, UsageError, "float64"),
        (np.zeros((4, 4, 3), np.uint8), {}, UsageError, "mpp=0.25"),
        ("gone.svs", {"scheduler": "serial", "model": "classical"}, SlideError, "gone.svs"),
        ("x.svs", {"modell": 1}, UsageError, "modell"),
        ("x.svs", {"model": "clasical"}, ModelError, "clasical"),
    ],
)
def test_mistakes_are_the_errors_of_the_program(
    empty_tmp: Path, given: Any, settings: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        wsi_nuc.segment(given, **settings)
    assert list(empty_tmp.iterdir()) == []


def test_another_slide_or_no_store_is_refused(result: wsi_nuc.Result, tmp_path: Path) -> None:
    other = tmp_path / "x.svs"
    write_slide(other, SynthSpec(size=SIZE, mpp=MPP, seed=3))
    with pytest.raises(SlideError):
        wsi_nuc.open(result.path, other).tiles(result.nuclei().iloc[:1])
    with pytest.raises(StorageError, match="is missing"):
        wsi_nuc.open(tmp_path)
