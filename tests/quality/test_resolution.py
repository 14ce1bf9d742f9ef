"""The judgement of a header's microns per pixel: the rule on generated sizes, then real and drawn slides."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import SlideError
from wsi_nuc.events import Warned
from wsi_nuc.features.running import run_slides
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.registry import load_model
from wsi_nuc.quality import check_mpp
from wsi_nuc.quality.resolution import ENOUGH_NUCLEI, FEWEST_NUCLEI, MOST_TILES, Sample, judge, sample_nuclei
from wsi_nuc.slides.overview import overview
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.manifest import read
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.tissue.find import tissue_for
from wsi_nuc.types import SlideRef

USUAL = (5.0, 8.0)


def equivariant(true_mpp: float, true_um: float, nuclei: int = 200) -> Callable[[float], Sample]:
    """A model without a scale of its own: what is twice as coarse looks twice as large."""
    return lambda mpp: Sample(mpp, np.full(nuclei, true_um * mpp / true_mpp))


@given(st.floats(5.01, 7.99), st.sampled_from([0.125, 0.25, 0.5]))
def test_a_usual_size_is_plausible(size_um: float, mpp: float) -> None:
    found = judge(equivariant(mpp, size_um), mpp, USUAL)
    assert (found.verdict, found.implied_mpp, found.fine) == ("plausible", None, True)


@given(st.floats(5.01, 7.99), st.sampled_from([0.25, 0.5, 2.0, 4.0]), st.sampled_from([0.125, 0.25, 0.5]))
def test_a_header_off_by_two_or_four_is_caught_and_named(size_um: float, factor: float, true: float) -> None:
    found = judge(equivariant(true, size_um), true * factor, USUAL)
    seen = size_um * factor
    assert found.fine == (USUAL[0] <= seen <= USUAL[1])
    if not found.fine:
        assert found.implied_mpp is not None
        assert math.isclose(found.implied_mpp, true)
        assert ("coarse" if factor > 1 else "fine") in found.reason
        assert "--mpp" in found.reason


@given(st.floats(1, 40))
def test_the_further_off_the_firmer_the_verdict(size_um: float) -> None:
    found = judge(equivariant(0.25, size_um), 0.25, USUAL)
    beyond = max(USUAL[0] / size_um, size_um / USUAL[1])
    width = USUAL[1] / USUAL[0]
    assert found.verdict == ("plausible" if beyond <= 1 else "impossible" if beyond > width**0.25 else "doubtful")


def test_a_few_nuclei_say_nothing() -> None:
    for size_um in (USUAL[0] / 1.4, 1.4 * USUAL[1]):
        found = judge(equivariant(0.25, size_um, FEWEST_NUCLEI - 1), 0.25, USUAL)
        assert (found.verdict, found.size_um, found.fine) == ("unknown", None, True)


@pytest.mark.parametrize(
    ("nuclei", "size_um", "way"), [(10, 14.0, "coarse"), (43, 2.1, "fine"), (43, 15, "coarse")]
)
def test_a_size_that_no_tissue_has_is_named_however_few_they_are(nuclei: int, size_um: float, way: str) -> None:
    found = judge(equivariant(0.25, size_um, nuclei), 0.25, USUAL)
    assert (found.verdict, found.nuclei, found.implied_mpp) == ("doubtful", nuclei, None)
    assert f"median area of {nuclei} nuclei is {np.pi / 4 * size_um**2:.3g} um2" in found.reason
    assert f"too {way}" in found.reason
    assert judge(equivariant(0.25, size_um, 9), 0.25, USUAL).verdict == "unknown"


def test_many_fragments_beside_a_few_large_nuclei_are_named() -> None:
    sizes = np.concatenate([np.full(40, 7.0), np.full(60, 2.0)])
    assert USUAL[0] <= Sample(0.25, sizes).size_um <= USUAL[1]
    found = judge(lambda mpp: Sample(mpp, sizes), 0.25, USUAL)
    assert (found.verdict, found.fine) == ("doubtful", False)
    assert "median area" in found.reason


def test_a_resolution_that_no_model_reads_is_not_proposed() -> None:
    def sample(mpp: float) -> Sample:
        if mpp > 0.4:
            raise SlideError("slide", "too coarse")
        return Sample(mpp, np.full(100, 2.0))

    found = judge(sample, 0.25, USUAL)
    assert (found.verdict, found.implied_mpp) == ("impossible", None)


def test_fragments_hardly_count() -> None:
    whole, fragments = np.full(100, 7.0), np.full(300, 1.5)
    assert Sample(0.25, np.concatenate([whole, fragments])).size_um == pytest.approx(7.0)


@pytest.fixture(scope="module")
def model() -> NucleiModel:
    return load_model("classical")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resolution")
    for seed in range(3):
        write_slide(folder / f"{seed}.svs", SynthSpec(size=1500, mpp=0.25, seed=seed))
    return folder


def verdict(path: Path, model: NucleiModel, mpp: float) -> str:
    source = open_slide(SlideRef(str(path)))
    try:
        return check_mpp(source, mpp, tissue_for(overview(source, mpp)), model).verdict
    finally:
        source.close()


def test_drawn_slides_are_plausible_as_they_are_and_not_four_times_as_coarse(
    drawn: Path, model: NucleiModel
) -> None:
    for slide in sorted(drawn.glob("*.svs")):
        assert verdict(slide, model, 0.25) == "plausible", slide
        assert verdict(slide, model, 1.0) in ("doubtful", "impossible"), slide


def test_the_sample_is_bounded_and_repeatable(drawn: Path, model: NucleiModel) -> None:
    source = open_slide(SlideRef(str(drawn / "1.svs")))
    area = tissue_for(overview(source, 0.25)).polygons
    one, two = (sample_nuclei(source, 0.25, area, model) for _ in range(2))
    np.testing.assert_array_equal(one.diameter_um, two.diameter_um)
    assert ENOUGH_NUCLEI <= len(one.diameter_um) < 2000 * MOST_TILES


def test_a_blank_slide_says_nothing(tmp_path: Path, model: NucleiModel) -> None:
    write_slide(tmp_path / "blank.svs", SynthSpec(size=1024, mpp=0.25, blank=True))
    assert verdict(tmp_path / "blank.svs", model, 0.25) == "unknown"


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", 0.499), ("OS-1-detail.ome.tif", 0.2271)])
def test_real_slides_are_not_doubted(name: str, mpp: float, wsi: Path, model: NucleiModel) -> None:
    assert verdict(wsi / name, model, mpp) == "plausible"


@pytest.mark.real_data
def test_fluorescence_says_nothing(wsi: Path, model: NucleiModel) -> None:
    assert verdict(next(wsi.glob("test3-DAPI*.ndpi")), model, 0.228) == "unknown"


@pytest.mark.parametrize(("mpp", "named"), [(0.25, False), (0.1, True)])
def test_a_run_names_sizes_that_no_tissue_has_and_still_publishes(
    drawn: Path, tmp_path: Path, mpp: float, named: bool
) -> None:
    told: list[object] = []
    config = RunConfig(out=tmp_path, scheduler="serial", mpp=mpp)
    (result,) = run_slides(config, [str(drawn / "1.svs")], told.append)
    assert result.status == "published"
    doubts = read(Path(result.store))["run"].get("doubts", [])
    assert [text.startswith("the median area of ") for text in doubts] == [True] * named
    warnings = [event.message for event in told if isinstance(event, Warned)]
    assert [text for text in warnings if "median area" in text] == doubts
