"""Microns per pixel: every source, every unusable value, and the remedy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.slides.make import APERIO, generic, ome, plain, svs, zarr_folder
from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.slides.mpp import Stated, in_um, require_mpp, resolve
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import SlideRef

usable = st.floats(0.02, 100.0)
unusable = st.sampled_from(["0", "-0.5", "nan", "inf", "0,499", "0.001", "250", "", "half"])


def header(text: str) -> str:
    return APERIO.replace("MPP = 0.5", text)


@given(value=usable, stated=st.text(max_size=8))
def test_the_user_is_always_right(value: float, stated: str) -> None:
    assert resolve(value, Stated((stated, stated), (0.3, 0.3), "40")).value == value


@given(value=st.one_of(st.just(math.nan), st.floats(max_value=0.0199), st.floats(min_value=100.01)))
def test_the_user_may_not_be_absurd(value: float) -> None:
    with pytest.raises(UsageError, match="--mpp"):
        resolve(value, Stated())


@given(x=usable, factor=st.floats(0.5, 2.0))
def test_unequal_axes_are_a_problem_and_equal_ones_an_answer(x: float, factor: float) -> None:
    answer = resolve(None, Stated((repr(x), repr(x * factor)), objective="20"))
    if abs(x - x * factor) > 0.02 * max(x, x * factor) or not 0.02 <= x * factor <= 100:
        assert answer.value is None
        assert repr(x)[:24] in answer.problem
    else:
        assert answer.value == pytest.approx(x * (1 + factor) / 2)
        assert answer.source == "header"


@given(bad=unusable, good=st.one_of(unusable, usable.map(repr)))
def test_an_unusable_header_is_not_replaced_by_a_guess(bad: str, good: str) -> None:
    answer = resolve(None, Stated((bad, good), (0.25, 0.25), "40"))
    if bad or good:
        assert answer.value is None
        assert repr(bad) in answer.problem
    else:
        assert (answer.value, answer.source) == (0.25, "resolution tags")


@given(dpi=st.sampled_from([72, 96, 100, 150, 200, 300, 600, 1200]))
def test_print_resolutions_are_not_an_answer(dpi: int) -> None:
    assert resolve(None, Stated(tags_um=(25400 / dpi, 25400 / dpi))).value is None
    assert resolve(None, Stated(tags_um=(25400 / dpi, 25400 / dpi), objective="20")).source == "objective"


@pytest.mark.parametrize("unit", ["µm", "μm", "um", "micrometer", ""])
def test_units_of_length(unit: str) -> None:
    assert float(in_um("0.25", unit)) == 0.25
    assert float(in_um("250", "nm")) == pytest.approx(0.25)
    assert math.isnan(float(in_um("1", "pixel")))
    assert in_um("", unit) == ""


@pytest.mark.parametrize("reader", ["jpegtiff", "openslide", "tiffslide"])
@pytest.mark.parametrize("text", ["MPP = 0", "MPP = nan", "MPP = 0,499", "MPP = 900", "MPP = -0.5"])
def test_a_slide_with_an_unusable_mpp_asks_for_it(tmp_path: Path, reader: str, text: str) -> None:
    path = str(svs(tmp_path / "a.svs", header(text)))
    info = open_slide(SlideRef(path, reader)).info
    assert info.mpp is None
    with pytest.raises(SlideError, match="Pass --mpp"):
        require_mpp(info)
    given_by_user = open_slide(SlideRef(path, reader, mpp=0.25)).info
    assert (require_mpp(given_by_user), given_by_user.mpp_source) == (0.25, "--mpp")


@pytest.mark.parametrize("reader", ["jpegtiff", "openslide", "tiffslide"])
def test_without_mpp_the_objective_answers(tmp_path: Path, reader: str) -> None:
    info = open_slide(SlideRef(str(svs(tmp_path / "a.svs", header("Q = 1"))), reader)).info
    assert (info.mpp, info.mpp_source, info.objective) == (0.5, "objective", 20.0)


def test_each_format_says_where_its_mpp_is_from(tmp_path: Path) -> None:
    answers = {
        path.name: (info.mpp, info.mpp_source)
        for path in (
            svs(tmp_path / "a.svs"),
            ome(tmp_path / "b.ome.tif", "250", "250", "nm"),
            generic(tmp_path / "c.tif"),
            zarr_folder(tmp_path / "d.zarr"),
            plain(tmp_path / "e.png"),
        )
        for info in [open_slide(SlideRef(str(path))).info]
    }
    assert answers == {
        "a.svs": (0.5, "header"),
        "b.ome.tif": (0.25, "header"),
        "c.tif": (0.25, "resolution tags"),
        "d.zarr": (0.5, "header"),
        "e.png": (None, ""),
    }


def test_unequal_ome_sizes_are_named(tmp_path: Path) -> None:
    info = open_slide(SlideRef(str(ome(tmp_path / "a.ome.tif", "0.25", "0.5")))).info
    assert info.mpp is None
    assert "'0.25' x '0.5'" in info.mpp_problem


def test_zarr_without_units_has_no_mpp(tmp_path: Path) -> None:
    assert open_slide(SlideRef(str(zarr_folder(tmp_path / "a.zarr", unit="")))).info.mpp is None
