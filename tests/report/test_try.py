"""`wsi-nuc try` shows what a run finds in its field."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsi_nuc.cli import app
from wsi_nuc.config import RunConfig
from wsi_nuc.features.running import run_slides
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.quality.trial import field_at, most_cellular, tried, within_a_tile
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.tissue.find import tissue_for
from wsi_nuc.types import SlideRef

MPP = 0.25


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "s.svs"
    write_slide(path, SynthSpec(size=1536, mpp=MPP, seed=5))
    return path


def test_a_field_has_the_nuclei_of_a_run(slide: Path, tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path, model="classical", scheduler="serial")
    (done,) = run_slides(config, [str(slide)])
    source = open_slide(SlideRef(str(slide), "auto", None))
    field = field_at(source, MPP, (760, 800))
    trial = tried(source, MPP, tissue_for(overview(source, MPP)), field, load_model("classical"))
    with NucleiReader(Path(done.store), ["x", "y"]) as reader:
        (rows,) = reader.each()
    xy = np.column_stack([rows.columns["x"], rows.columns["y"]])
    inside = ((xy >= [field.x0, field.y0]) & (xy < [field.x1, field.y1])).all(1)
    # A prompt and the centroid of its outline may lie on two sides of the field's edge.
    assert sum(trial.counts.values()) == pytest.approx(inside.sum(), rel=0.1)
    assert len(trial.nuclei) > 30
    assert trial.slide_seconds(workers=2) == pytest.approx(trial.slide_seconds(workers=1) / 2)


def test_the_field_is_moved_into_the_slide_and_refused_outside(slide: Path) -> None:
    source = open_slide(SlideRef(str(slide), "auto", None))
    field = field_at(source, MPP, (0, 1535))
    assert (field.x0, field.y1, field.x1) == (0, 1536, 800)
    assert command("try", slide, "--at", "1600,10") == 2
    assert command("try", slide, "--at", "10") == 2
    assert command("try", slide, "--at", "10,10", "--most-cellular") == 2


@pytest.mark.parametrize("xy", [(5, 5), (760, 800), (1530, 1530)])
def test_a_field_that_fits_into_a_tile_is_moved_into_it(slide: Path, xy: tuple[int, int]) -> None:
    source, spec = open_slide(SlideRef(str(slide), "auto", None)), model_spec("default")
    field = within_a_tile(source, MPP, field_at(source, MPP, xy, 100), spec)
    core = spec.core_px * spec.mpp / MPP
    assert (field.x0 // core, field.y0 // core) == ((field.x1 - 1) // core, (field.y1 - 1) // core)
    assert min(field.x0, field.y0) >= 0
    assert max(field.x1, field.y1) <= 1536
    assert field.x1 - field.x0 == field.y1 - field.y0 == 400


def test_the_most_cellular_field_has_more_nuclei_than_most(slide: Path) -> None:
    source = open_slide(SlideRef(str(slide), "auto", None))
    view, model = overview(source, MPP), load_model("classical")
    tissue = tissue_for(view)
    best = len(tried(source, MPP, tissue, most_cellular(source, view, tissue, 60), model).nuclei)
    others = [(x, y) for x in range(200, 1500, 400) for y in range(200, 1500, 400)]
    counts = [len(tried(source, MPP, tissue, field_at(source, MPP, xy, 60), model).nuclei) for xy in others]
    assert best > np.median(counts)


def test_two_models_stand_side_by_side(slide: Path, tmp_path: Path) -> None:
    code = command("try", slide, "--model", "classical", "--model", "classical", "--out", tmp_path / "both.png")
    assert code == 0
    picture = np.asarray(Image.open(BytesIO((tmp_path / "both.png").read_bytes())))
    half = picture.shape[1] // 2
    assert picture.shape[1] > 1.5 * picture.shape[0]
    assert (picture[200:, : half - 6] == picture[200:, half + 6 :]).all()


def command(*words: object) -> int:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return int(getattr(done.exception, "exit_code", done.exit_code))
