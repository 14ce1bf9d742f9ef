"""The page of a slide says what the store holds, loads nothing, and finds seams that were made on purpose."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree
from typer.testing import CliRunner

from tests.features.build import made_from, publish_nuclei
from tests.store.build import nuclei
from wsi_nuc.cli import app
from wsi_nuc.config import RunConfig
from wsi_nuc.features.running import run_slides
from wsi_nuc.report.figures import BEST, DOUBTFUL, EXAMPLES, figures_of
from wsi_nuc.report.page import report_path, write_report
from wsi_nuc.report.seams import SeamAudit, crossed_lines
from wsi_nuc.rings import Rings
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.store.reading import StoredRings
from wsi_nuc.store.tables import probability_name
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import Float64, SlideRef

STEP, MPP, SIZE = 400.0, 0.25, 6000.0


def discs(xy: Float64, radius: float = 12.0) -> StoredRings:
    turn = np.arange(24) * (2 * np.pi / 24) + 0.1
    circle = radius * np.column_stack([np.cos(turn), np.sin(turn)])
    rings = Rings.of([centre + circle for centre in xy])
    return StoredRings(rings.xy, rings.offsets, np.arange(1, len(xy) + 1), rings.bounds())


def audit(rings: StoredRings) -> SeamAudit:
    area, xy = rings.areas_and_centres()
    lines = crossed_lines(STEP, MPP)
    for crossed in lines:
        crossed.add(rings, xy, area * MPP**2)
    seams, *moved = [crossed.result() for crossed in lines]
    return SeamAudit(STEP * MPP, seams, tuple(moved))


def scattered(count: int = 9000, seed: int = 0) -> Float64:
    """Centres at random places at least 26 px apart, as those of nuclei are."""
    xy = np.random.default_rng(seed).uniform(0, SIZE, (count, 2))
    near = cKDTree(xy).query_pairs(26, output_type="ndarray")
    return np.delete(xy, near[:, 1], axis=0)


def to_seam(xy: Float64) -> Float64:
    """N: the distance of each point from the nearest line of x."""
    return np.abs(xy[:, 0] - np.round(xy[:, 0] / STEP) * STEP)


@pytest.mark.parametrize("seed", range(3))
def test_nuclei_that_know_nothing_of_tiles_raise_no_doubt(seed: int) -> None:
    assert audit(discs(scattered(seed=seed))).findings == []


def test_missing_nuclei_are_noticed() -> None:
    xy = scattered()
    assert "nuclei are missing at seams" in audit(discs(xy[to_seam(xy) > 10])).findings


def test_nuclei_that_were_found_twice_are_noticed() -> None:
    xy = scattered()
    twice = xy[to_seam(xy) < 8] + 1.0
    assert "nuclei at seams were found twice" in audit(discs(np.vstack([xy, twice]))).findings


def test_nuclei_that_were_cut_are_noticed() -> None:
    rings = discs(scattered())
    line = np.round(rings.bounds_l0[:, [0, 2]].mean(1) / STEP) * STEP
    across = (rings.bounds_l0[:, 0] < line) & (rings.bounds_l0[:, 2] > line)
    limit = np.repeat(np.where(across, line + 0.01, np.inf), rings.ring_lengths)
    cut = rings.xy.copy()
    cut[:, 0] = np.minimum(cut[:, 0], limit)
    made = StoredRings(cut, rings.offsets, rings.ids, Rings(cut, rings.offsets).bounds())
    assert "nuclei at seams are cut along them" in audit(made).findings


def command(*words: object) -> int:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return int(getattr(done.exception, "exit_code", done.exit_code))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("slide")
    slide = folder / "<b>one & two.svs"
    write_slide(slide, SynthSpec(size=1280, mpp=0.25, seed=3))
    config = RunConfig(out=folder / "results", model="classical", scheduler="serial")
    (done,) = run_slides(config, [str(slide)])
    return slide, Path(done.store)


def test_the_page_says_what_the_store_holds(result: tuple[Path, Path]) -> None:
    slide, store = result
    page = write_report(store, SlideRef(str(slide), "auto", None)).read_text()
    counts = manifests.read(store)["counts"]
    assert report_path(store).name == f"{slide.name}.report.html"
    assert f"<b>{counts['nuclei']:,}</b>" in page
    assert "no difference beyond chance" in page
    assert page.count("data:image/jpeg") > EXAMPLES


def test_the_page_loads_nothing_and_escapes_names(result: tuple[Path, Path]) -> None:
    slide, store = result
    page = write_report(store, SlideRef(str(slide), "auto", None)).read_text()
    assert "<b>one" not in page
    assert "&lt;b&gt;one &amp; two.svs" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "<script" not in page


def test_examples_are_the_surest_and_the_most_doubtful(result: tuple[Path, Path]) -> None:
    _, store = result
    figures = figures_of(store, manifests.read(store))
    names = [probability_name(of.name) for of in figures.classes]
    with NucleiReader(store, ["score", "class", *names]) as reader:
        (rows,) = reader.each()
    score, kind = rows.columns["score"], rows.columns["class"].astype(str)
    sure = score * np.max([rows.columns[name] for name in names], axis=0)
    assert sum(of.count for of in figures.classes) == len(score)
    for of in figures.classes:
        own = np.sort(sure[kind == of.name])
        assert of.count == len(own)
        assert [e.score * e.probability for e in of.examples[DOUBTFUL]] == pytest.approx(own[:EXAMPLES])
        assert [e.score * e.probability for e in of.examples[BEST]] == pytest.approx(own[::-1][:EXAMPLES])
    assert figures.density.sum() * (figures.cell_um / 1000) ** 2 == pytest.approx(len(score))


def test_another_slide_is_refused(result: tuple[Path, Path], tmp_path: Path) -> None:
    _, store = result
    other = tmp_path / "other.svs"
    write_slide(other, SynthSpec(size=1280, mpp=0.25, seed=4))
    assert command("report", store, "--slide", other, "--out", tmp_path / "page.html") == 3
    assert not (tmp_path / "page.html").exists()


def test_a_store_without_nuclei_and_slide_has_a_page(tmp_path: Path) -> None:
    store = publish_nuclei(tmp_path, nuclei(0), made=made_from())
    page = write_report(store, None).read_text()
    assert "The slide was not at hand" in page
    assert "the grid of tiles is not known" in page


def test_run_writes_the_page_beside_the_store(tmp_path: Path) -> None:
    slide = tmp_path / "s.svs"
    write_slide(slide, SynthSpec(size=768, mpp=0.25, seed=1))
    code = command(
        "run", slide, "--out", tmp_path / "out", "--model", "classical", "--scheduler", "serial", "--report", "-q"
    )
    assert code == 0
    assert (tmp_path / "out/s.svs.report.html").stat().st_size > 10_000
