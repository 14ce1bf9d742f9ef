"""The report is one file that loads nothing else, names what is not done, and finds outliers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cohort.lists import planned, row, write_list
from wsi_nuc.cohort.collect import collect
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, save
from wsi_nuc.cohort.report import write_report
from wsi_nuc.cohort.report.figures import BINS, Figure, figures_of, histogram, outliers
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.config import RunConfig
from wsi_nuc.report import page as report_page


class _Page(HTMLParser):
    """The tags with their attributes, and the text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", [""]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open[-1] not in ("style", "script"):
            self.text += data


def _read(folder: CohortFolder) -> _Page:
    write_report(folder)
    return _Page(folder.report.read_text())


@pytest.fixture(scope="module")
def done(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> CohortFolder:
    lines = ["slide,id,patient", f"{slides[0]},a,P1", f"{slides[1]},b,<b>P2</b>", "none.svs,gone,P3"]
    root = tmp_path_factory.mktemp("report")
    folder, _ = planned(root / "cohort", write_list(root / "list.csv", *lines))
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    return folder


def test_a_slide_with_a_page_of_its_own_is_linked(done: CohortFolder) -> None:
    links = [attrs["href"] for tag, attrs in _read(done).tags if tag == "a"]
    assert links == []
    page = report_page.write_report(done.store("a"), None)
    links = [attrs["href"] for tag, attrs in _read(done).tags if tag == "a"]
    assert [(done.root / str(link)).resolve() for link in links] == [page.resolve()]
    page.unlink()


def test_the_page_asks_for_nothing_and_runs_nothing(done: CohortFolder) -> None:
    page = _read(done)
    assert not [
        tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "embed", "form", "base")
    ]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            if name in ("src", "href", "srcset", "action", "data"):
                assert str(value).startswith("data:image/jpeg;base64,")
    raw = done.report.read_text()
    assert not re.search(r"https?:|url\(|@import", raw)
    policy = [
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_it_shows_what_is_done_and_names_what_is_not(done: CohortFolder) -> None:
    page = _read(done)
    assert "2done" in page.text
    assert "1refused" in page.text
    assert "none.svs: does not exist" in page.text
    assert "<b>P2</b>" in page.text
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2
    assert len([tag for tag, _ in page.tags if tag == "svg"]) >= 8


def test_slides_unlike_the_training_images_are_named(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = iter([["blurred (sharpness 0.1)", "paler (density 0.2)"], []])
    monkeypatch.setattr("wsi_nuc.run.publish.unlike", lambda looks, limits: next(known))
    lines = ["slide,id,patient", f"{slides[0]},strange,P1", f"{slides[1]},usual,P1"]
    folder, _ = planned(tmp_path / "cohort", write_list(tmp_path / "list.csv", *lines))
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    page = _read(folder)
    named = "unlike the training images: blurred (sharpness 0.1); paler (density 0.2)"
    assert page.text.count("unlike the training images") == 1
    assert any(f"{slide}{named}" in page.text for slide in ("strange", "usual"))
    of_slides = {row["id"]: row["unlike_training_images"] for row in collect(folder).slides}
    assert sorted(of_slides.values()) == ["", named.partition(": ")[2]]
    assert "unlike_training_images" not in collect(folder).patients[0]


def test_nothing_of_a_list_becomes_markup(tmp_path: Path) -> None:
    folder = CohortFolder(tmp_path / "cohort")
    evil = "<script>alert(1)</script><img src=x onerror=1>\"'&"
    rows = (row(2, problem=evil, patient=evil, slide=evil), row(3, patient=evil, id="a<b>"))
    save(folder, Plan({"model": evil}, rows), overwrite=False)
    page = _read(folder)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert page.text.count("<script>alert(1)</script>") >= 3


def test_a_cohort_that_has_not_begun_has_a_report(tmp_path: Path) -> None:
    folder = CohortFolder(tmp_path / "cohort")
    settings = {"model": RunConfig(out=tmp_path).model}
    save(folder, Plan(settings, (row(2), row(3))), overwrite=False)
    assert "2pending" in _read(folder).text


def test_the_slide_that_is_far_off_is_found_and_no_other() -> None:
    random = np.random.default_rng(1)
    rows = [{"id": f"s{i}", "nuclei_per_mm2": float(random.uniform(2600, 3400))} for i in range(60)]
    figures = figures_of(["nuclei_per_mm2"])
    assert outliers(figures, rows) == []
    far = [*rows, {"id": "few", "nuclei_per_mm2": 100.0}, {"id": "unknown"}]
    assert [(outlier.id, outlier.sigmas < 0) for outlier in outliers(figures, far)] == [("few", True)]
    assert outliers(figures, far[-8:]) == [], "a handful has no spread to speak of"


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=50), st.booleans())
def test_every_value_is_in_the_histogram(values: list[float], log: bool) -> None:
    drawn = histogram(Figure("x", "x", log), np.array(values))
    assert 1 <= len(drawn.bars) <= min(BINS, len(set(values)))
    assert max(height for _, height in drawn.bars) == 1
    shares = [share for bar in drawn.bars for share in bar]
    assert all(0 <= share <= 1 for share in (*shares, drawn.middle))
    assert (drawn.slides, drawn.least, drawn.most) == (len(values), min(values), max(values))
