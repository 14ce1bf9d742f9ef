"""What the viewer's server answers is what the result holds, and only its own page gets it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from benchmarks.hostile_requests import hostile
from benchmarks.viewer import Server, viewing
from tests.viewer.asking import Cell, Page
from tests.viewer.conftest import EDGE_PX, ROI, Results
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.manifest import read
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.types import Box, SlideRef


@pytest.fixture(scope="module")
def server(results: Results) -> Iterator[Server]:
    with viewing(results.store, results.other, "--slides", results.slide.parent, "--roi", results.roi) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server) -> Page:
    return Page(server.address)


@pytest.fixture(scope="module")
def path(page: Page) -> str:
    return page.of("first/")


def test_a_tile_shows_the_pixels_of_the_slide(page: Page, path: str, results: Results) -> None:
    source = open_slide(SlideRef(str(results.slide)))
    for step, x, y in ((0, 1, 1), (0, 4, 4), (1, 0, 0), (3, 0, 0)):
        answer = page.get(f"{path}/tile/{step}/{x}/{y}")
        assert answer.headers["Content-Type"] == "image/jpeg"
        shown = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        edge = 512 * 2**step
        box = Box(x * edge, y * edge, min((x + 1) * edge, EDGE_PX), min((y + 1) * edge, EDGE_PX))
        whole = cv2.resize(source.read(0, box).rgb, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert shown.shape == (-(-box.height // 2**step), -(-box.width // 2**step), 3)
        assert np.abs(shown.astype(int) - whole).mean() < 6
    source.close()
    assert page.get(f"{path}/tile/0/5/0").status == 404
    assert page.get(f"{path}/tile/99/0/0").status == 404


def test_the_cells_hold_every_nucleus_once_with_its_outline_and_values(
    page: Page, path: str, results: Results
) -> None:
    meta = page.get(path).json
    names = ["predicted_iou", "eccentricity"]
    with NucleiReader(results.store, ["x", "y", "score", "area_um2", "class_id", *names]) as reader:
        (known,) = list(reader.each())
    seen = np.zeros(len(known), int)
    for y in range(meta["cells"][1]):
        for x in range(meta["cells"][0]):
            cell = Cell.of(page.get(f"{path}/cell/{x}/{y}?values={','.join(names)}").body, len(names))
            seen[cell.rows] += 1
            corner = np.array([x, y]) * meta["cell"]
            for row, ring in zip(cell.rows.tolist(), cell.rings, strict=True):
                np.testing.assert_allclose(ring[:-1] + corner, known.rings.ring(row), atol=0.01)
                np.testing.assert_array_equal(ring[0], ring[-1])
            np.testing.assert_allclose(cell.xy[:, 0] + corner[0], known.columns["x"][cell.rows], atol=0.01)
            for values, name in zip(cell.values, ("score", "area_um2", *names), strict=True):
                np.testing.assert_array_equal(values, known.columns[name][cell.rows].astype(np.float32))
            np.testing.assert_array_equal(cell.class_id, known.columns["class_id"][cell.rows])
    assert seen.tolist() == [1] * len(known)
    squares = -(-meta["cells"][0] // meta["pointCells"])
    places = [(x, y) for y in range(squares) for x in range(squares)]
    points = [Cell.of(page.get(f"{path}/points/{x}/{y}").body, 0, outlined=False) for x, y in places]
    assert sorted(np.concatenate([square.rows for square in points])) == list(range(len(known)))
    assert page.get(f"{path}/cell/{meta['cells'][0]}/0").status == 404


def test_counts_density_and_histograms_follow_filter_and_view(page: Page, path: str, results: Results) -> None:
    with NucleiReader(results.store, ["x", "y", "score", "class_id", "eccentricity"]) as reader:
        (known,) = list(reader.each())
    x, y, score, kind, long = known.columns.values()
    filtered = "classes=0,2&ranges=score:0.4,0.7;eccentricity:0.5,1"
    passing = np.isin(kind, [0, 2]) & (score >= 0.4) & (score <= 0.7) & (long >= 0.5)
    in_view = passing & (x >= 200) & (x < 900) & (y >= 100) & (y < 700)
    answer = page.get(f"{path}/stats?{filtered}&box=200,100,900,700&histograms=score,eccentricity").json
    classes = range(len(answer["all"]))
    assert answer["all"] == [int((kind == number).sum()) for number in classes]
    assert answer["passing"] == [int((kind[passing] == number).sum()) for number in classes]
    assert answer["view"] == [int((kind[in_view] == number).sum()) for number in classes]
    assert 0 < in_view.sum() < passing.sum() < len(x)
    # A histogram also shows what its own range cuts off.
    without_own = np.isin(kind, [0, 2]) & (long >= 0.5) & (x >= 200) & (x < 900) & (y >= 100) & (y < 700)
    assert sum(answer["histograms"][0]["bars"]) == without_own.sum()
    data = page.get(f"{path}/density?{filtered}").body
    width, height = np.frombuffer(data, "<u4", 2).tolist()
    edge = float(np.frombuffer(data, "<f4", 1, 8)[0])
    counts = np.frombuffer(data, "<u2", width * height, 12 + 4 * width * height).reshape(height, width)
    bins = np.histogram2d(y[passing], x[passing], (np.arange(height + 1) * edge, np.arange(width + 1) * edge))[0]
    np.testing.assert_array_equal(counts, bins)


def test_a_nucleus_comes_with_its_numbers_and_where_they_are_from(page: Page, path: str, results: Results) -> None:
    with NucleiReader(results.store, ["class", "score", "eccentricity"]) as reader:
        (known,) = list(reader.each())
    answer = page.get(f"{path}/nucleus/17").json
    assert answer["values"]["class"] == known.columns["class"][16]
    assert answer["values"]["eccentricity"] == pytest.approx(float(known.columns["eccentricity"][16]))
    np.testing.assert_allclose(answer["ring"], known.rings.ring(16), atol=0.01)
    told = dict(answer["provenance"])
    assert told["model"] == "classical"
    assert str(read(results.store)["digest"]).startswith(told["result"])
    assert page.get(f"{path}/nucleus/0").status == 404
    assert page.get(f"{path}/nucleus/{len(known) + 1}").status == 404


def test_layers_are_those_of_the_run(page: Page, path: str, results: Results) -> None:
    layers, manifest = page.get(f"{path}/layers").json, read(results.store)
    edge, columns, rows = layers["grid"]
    assert columns * rows == manifest["tiles"]["total"]
    assert (columns - 1) * edge < EDGE_PX <= columns * edge
    assert len(layers["skipped"]) == manifest["tiles"]["background"]
    tissue = shapely.union_all([shapely.Polygon(ring).buffer(0) for ring in layers["tissue"]])
    assert tissue.area * 0.25**2 / 1e6 == pytest.approx(manifest["counts"]["area_mm2"], rel=0.05)


def test_the_roi_is_drawn_from_its_file_where_it_is_the_one_of_the_run(page: Page, path: str) -> None:
    layers = page.get(f"{page.of('second/')}/layers").json
    (ring,) = layers["roi"]
    assert (sorted(ring), layers["roiIs"]) == (sorted(ROI), "")
    assert shapely.union_all([shapely.Polygon(each) for each in layers["tissue"]]).bounds == (300, 300, 2000, 1800)
    without = page.get(f"{path}/layers").json
    assert (without["roi"], without["roiIs"]) == ([], "the result was made without a ROI")


def test_both_results_of_a_slide_are_told_apart(page: Page) -> None:
    rows = page.all()
    assert len({row["name"] for row in rows}) == len({row["id"] for row in rows}) == 2
    assert len({row["slideKey"] for row in rows}) == 1
    assert "eccentricity" not in [c["name"] for c in page.get(page.of("second/")).json["columns"]]


def test_slide_and_files_are_compared_with_what_was_published(page: Page, path: str) -> None:
    end = time.monotonic() + 30
    while page.get(f"{path}/status").json["files"] == "checking" and time.monotonic() < end:
        time.sleep(0.2)
    status = page.get(f"{path}/status").json
    assert (status["state"], status["files"], status["problems"]) == ("same", "same", [])


def test_everything_goes_out_with_a_strict_policy(page: Page) -> None:
    assert {rule.strip() for rule in page.cookie_rules.split(";")} >= {"HttpOnly", "SameSite=Strict"}
    for path in ("/", "/viewer.js", "/api/all", "/nowhere"):
        headers = page.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
    assert page.get("/api/all", "HEAD").body == b""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "{host}"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Cookie": ""}, 403),
        ({"Cookie": "{cookie}x"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
    ],
    ids=str,
)
def test_a_request_needs_host_token_and_no_other_origin(page: Page, headers: dict[str, str], status: int) -> None:
    port = page.host.rpartition(":")[2]
    filled = {
        name: value.format(host=f"http://{page.host}", cookie=page.cookie).replace(
            "localhost", f"localhost:{port}"
        )
        for name, value in headers.items()
    }
    assert page.get("/api/all", **filled).status == status


def test_no_hostile_request_is_answered_with_data(server: Server, page: Page) -> None:
    assert hostile(server.address, 240) == 0
    assert page.get("/api/all").status == 200


@pytest.mark.parametrize(
    "query", ["ranges=score:1", "ranges=nothing:0,1", "classes=a", "box=1,2,3", "box=nan,0,1,1"]
)
def test_a_filter_that_makes_no_sense_is_refused(page: Page, path: str, query: str) -> None:
    assert page.get(f"{path}/stats?{query}").status == 400


def test_addresses_tell_nothing_about_paths(page: Page, results: Results) -> None:
    everything = page.get("/api/all").body + page.get(page.of("first/")).body
    assert str(results.store.parent.parent).encode() not in everything
    assert Path(str(results.slide)).parent.as_posix().encode() not in everything
