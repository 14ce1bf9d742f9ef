"""The page in a headless Chromium: what is drawn, what keys and clicks do, and what a link keeps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.browser import Browser, program
from benchmarks.viewer import COMPLETE, viewing
from tests.viewer.conftest import EDGE_PX, Results
from wsi_nuc.store.nuclei_rows import NucleiReader

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium on this machine")
# How many pixels of the layer of nuclei are drawn.
PIXELS = """(() => {
  wsiNuc.panes[0].draw();
  const gl = wsiNuc.panes[0].layer.gl, { width, height } = gl.canvas, made = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, made);
  return made.filter((value, i) => i % 4 === 3 && value > 0).length;
})()"""


@pytest.fixture(scope="module")
def browser(results: Results) -> Iterator[Browser]:
    with (
        viewing(results.store, results.other, "--slide", results.slide) as server,
        Browser((1200, 800)) as running,
    ):
        running.open(server.address)
        running.wait(COMPLETE, 60)
        yield running
        assert not running.problems


def settle(browser: Browser) -> None:
    browser.run("new Promise((done) => setTimeout(done, 60))")
    browser.wait(COMPLETE, 30)


def look(browser: Browser, name: str) -> Any:
    """A screenshot; kept for people where WSI_NUC_SCREENSHOTS names a folder."""
    folder = Path(os.environ.get("WSI_NUC_SCREENSHOTS", browser.folder))
    return cv2.imread(str(browser.screenshot(folder / f"{name}.png")))


def show(browser: Browser, x: float, y: float, zoom: float) -> None:
    browser.run(f"wsiNuc.panes[0].go({{x: {x}, y: {y}, zoom: {zoom}}})")
    settle(browser)


@pytest.fixture(autouse=True)
def whole_slide(browser: Browser) -> None:
    """Each test begins with the whole slide in the first result."""
    browser.run("wsiNuc.look.side && wsiNuc.beside()")
    browser.wait(COMPLETE)
    browser.run("wsiNuc.rows.find((row) => row.at === 0).id !== wsiNuc.look.store && wsiNuc.swap()")
    browser.wait(COMPLETE)
    browser.run(
        "wsiNuc.choose(0); wsiNuc.change({colour: 'class', hidden: new Set(), ranges: {}, fill: false});"
        "wsiNuc.look.theme = ''; wsiNuc.applyTheme(); wsiNuc.panes[0].go(wsiNuc.whole(wsiNuc.panes[0]))"
    )
    settle(browser)


def test_tiles_and_outlines_are_drawn_and_counted(browser: Browser, results: Results) -> None:
    assert browser.run("wsiNuc.panes[0].drawn") == "cell"
    overview = look(browser, "overview")
    assert len(np.unique(overview[100:700, 100:800].reshape(-1, 3), axis=0)) > 1000
    browser.wait("wsiNuc.figures")
    with NucleiReader(results.store) as reader:
        assert sum(browser.run("wsiNuc.figures[0].view")) == reader.rows
    browser.key("4")
    browser.run("new Promise((done) => setTimeout(done, 400))")
    settle(browser)
    look(browser, "40x")
    assert browser.run("wsiNuc.panes[0].place.zoom") == pytest.approx(1, rel=0.01)
    assert browser.run(PIXELS) > 1000


def test_a_filter_takes_away_what_does_not_pass(browser: Browser) -> None:
    show(browser, EDGE_PX / 2, EDGE_PX / 2, 0.5)
    before = browser.run(PIXELS)
    browser.run("wsiNuc.setRange('area_um2', [40, 1e30])")
    settle(browser)
    fewer = browser.run(PIXELS)
    assert 0 < fewer < 0.7 * before
    look(browser, "filter")
    browser.run("wsiNuc.change({hidden: new Set(wsiNuc.panes[0].meta.classes.map((entry) => entry.name))})")
    settle(browser)
    assert browser.run(PIXELS) == 0


def test_any_column_colours_the_nuclei(browser: Browser) -> None:
    browser.run("wsiNuc.change({colour: 'eccentricity', fill: true})")
    browser.wait("wsiNuc.panes[0].nuclei.extents.eccentricity")
    settle(browser)
    look(browser, "feature")
    browser.wait("document.querySelector('.ramp')")
    assert browser.run(PIXELS) > 1000


def test_a_click_on_a_nucleus_shows_its_numbers(browser: Browser, results: Results) -> None:
    with NucleiReader(results.store, ["x", "y", "area_um2"]) as reader:
        (known,) = list(reader.each())
    row = int(np.argmax(known.columns["area_um2"]))
    show(browser, float(known.columns["x"][row]), float(known.columns["y"][row]), 2)
    x, y, width, height = browser.run(
        "(({ x, y, width, height }) => [x, y, width, height])(wsiNuc.panes[0].root.getBoundingClientRect())"
    )
    browser.click(x + width / 2, y + height / 2)
    browser.wait("wsiNuc.panes[0].chosen")
    assert browser.run("wsiNuc.look.chosen") == row + 1
    assert f"{row + 1:,}" in browser.run("document.querySelector('.chosen b').textContent")
    browser.key("n")
    browser.wait(f"wsiNuc.look.chosen !== {row + 1} && wsiNuc.panes[0].chosen")
    browser.key("Escape")
    browser.wait("!document.querySelector('.chosen')")


def test_a_link_keeps_the_view(browser: Browser) -> None:
    look = "{colour: 'score', hidden: new Set(['connective']), ranges: {score: [0.2, 0.9]}, grid: true}"
    browser.run(f"wsiNuc.change({look})")
    show(browser, 1000, 900, 1.5)
    browser.run("wsiNuc.remember()")
    kept = browser.run("[location.hash, wsiNuc.panes[0].place]")
    browser.run("window.old = true; setTimeout(() => location.reload())")
    browser.wait(f"!window.old && {COMPLETE} && wsiNuc.panes[0].times.nuclei", 30)
    again = browser.run("[location.hash, wsiNuc.panes[0].place]")
    assert again[0] == kept[0]
    assert again[1] == pytest.approx(kept[1], rel=1e-3)
    assert browser.run("wsiNuc.look.colour") == "score"
    assert browser.run("wsiNuc.look.grid") is True
    browser.run("wsiNuc.change({grid: false})")


def test_two_results_are_swapped_and_shown_side_by_side(browser: Browser) -> None:
    """The place stays, even where the key comes before everything is drawn."""
    first = browser.run("wsiNuc.panes[0].meta.id")
    browser.run("wsiNuc.panes[0].go({x: 900, y: 900, zoom: 1})")
    browser.key("x")
    browser.wait(f"{COMPLETE} && wsiNuc.panes[0].meta.id !== '{first}'", 30)
    assert browser.run("Math.round(wsiNuc.panes[0].place.x)") == 900
    browser.key("s")
    browser.wait(f"{COMPLETE} && wsiNuc.panes.length === 2", 30)
    browser.run("wsiNuc.panes[1].go({x: 1200, y: 1000, zoom: 1})")
    settle(browser)
    look(browser, "two")
    assert browser.run("wsiNuc.panes.map((pane) => Math.round(pane.place.x))") == [1200, 1200]


def test_keys_move_zoom_and_turn_dark(browser: Browser) -> None:
    before = browser.run("wsiNuc.panes[0].place")
    for key in ("+", "ArrowRight"):
        browser.key(key)
        browser.run("new Promise((done) => setTimeout(done, 700))")
    after = browser.run("wsiNuc.panes[0].place")
    assert after["zoom"] > 1.3 * before["zoom"]
    assert after["x"] > before["x"]
    browser.key("d")
    browser.key("h")
    dark = look(browser, "dark")
    assert dark[5, 600].max() < 80
    assert browser.run("document.querySelector('dialog').open") is True
    browser.key("h")
    browser.wait("!document.querySelector('dialog')")


def test_the_view_is_saved_as_png_with_tiles_and_nuclei(browser: Browser) -> None:
    show(browser, 900, 900, 1)
    size = browser.run(
        "wsiNuc.picture().then(createImageBitmap).then((made) => {"
        "const pen = new OffscreenCanvas(made.width, made.height).getContext('2d'); pen.drawImage(made, 0, 0);"
        "const data = pen.getImageData(0, 0, made.width, made.height).data, seen = new Set();"
        "for (let i = 0; i < data.length; i += 4) seen.add(data[i] * 65536 + data[i + 1] * 256 + data[i + 2]);"
        "return [made.width, made.height, seen.size, seen.has(0x00d26a) || seen.has(0xffe000)]; })"
    )
    assert size[:2] == browser.run("[wsiNuc.panes[0].root.clientWidth, wsiNuc.panes[0].root.clientHeight]")
    assert size[2] > 1000
    assert size[3] is True


@pytest.mark.slow
def test_a_folder_is_shown_as_thumbnails_and_opened_by_a_click(results: Results, tmp_path: Path) -> None:
    for name in ("a.zarr", "b.zarr"):
        shutil.copytree(results.store, tmp_path / name)
    (tmp_path / "half.zarr").mkdir()
    with viewing(tmp_path, "--slides", results.slide.parent) as server, Browser((1200, 800)) as browser:
        browser.open(server.address)
        browser.wait("document.querySelector('a.card img')?.naturalWidth > 0")
        look(browser, "folder")
        browser.run("document.querySelector('a.card').click()")
        browser.wait(COMPLETE)
        assert not browser.problems
