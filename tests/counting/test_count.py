"""Counts are those that one gets by hand: in regions with holes, in parts, on borders. Tilings count each once."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.cohort.lists import planned, write_list
from tests.features.build import made_from, publish_nuclei
from tests.store.build import CLASSES
from tests.store.build import nuclei as some_nuclei
from tests.store.faults import failing
from wsi_nuc.cli import app
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.counting.count import Grid, Question, areas_within, count
from wsi_nuc.counting.regions import Regions, holds, read_regions, whole_slide
from wsi_nuc.counting.table import COLUMNS, Subject, columns_of, write_counts
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.features.summary import slide_summary
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.column_record import find
from wsi_nuc.store.manifest import Accounting, Lost
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import Float64, TileCounts

TUMOUR, STROMA, IMMUNE = range(3)
# x, y, class and score of each nucleus, on a slide of 1000 x 1000 px of 1 um. Tissue ends at x = 800.
NUCLEI = [
    (150, 150, TUMOUR, 0.9),  # in the ring
    (250, 250, STROMA, 0.9),  # in its hole
    (200, 250, TUMOUR, 0.4),  # on the left side of the hole, which the nest holds
    (300, 250, TUMOUR, 0.9),  # on the right side of the hole, which the ring holds
    (350, 350, IMMUNE, 0.9),  # in the ring and in the strip
    (300, 300, STROMA, 0.9),  # the lower right corner of the hole, and the upper left one of the strip
    (550, 650, STROMA, 0.2),  # in one of two parts
    (600, 650, TUMOUR, 0.9),  # on the right side of this part
    (700, 600, IMMUNE, 0.9),  # on the upper left corner of the other part
    (850, 400, TUMOUR, 0.9),  # in the strip, outside of the tissue
    (400, 200, TUMOUR, 0.9),  # on the right side of the ring
]
RING = shapely.Polygon(shapely.box(100, 100, 400, 400).exterior, [shapely.box(200, 200, 300, 300).exterior])
NEST, STRIP = shapely.box(200, 200, 300, 300), shapely.box(300, 300, 900, 500)
PAIR = shapely.MultiPolygon([shapely.box(500, 600, 600, 700), shapely.box(700, 600, 800, 700)])
DRAWN = [("ring", "Tumor", RING), ("nest", "Stroma", NEST), ("strip", "", STRIP), ("", "Stroma", PAIR)]
# Of 1 mm2, with the tissue, and 2,500 px without a result.
LOST = (350, 350, 400, 400)


def squares(rows: Sequence[tuple[float, float, int, float]]) -> NucleiTable:
    """Nuclei of 4 x 4 px around these centroids."""
    centres = np.array([row[:2] for row in rows], np.float64).reshape(-1, 2)
    corners = np.array([[-2, -2], [2, -2], [2, 2], [-2, 2]], np.float64)
    rings = Rings.of([centre + corners for centre in centres])
    score = np.array([row[3] for row in rows], np.float32)
    probs = np.eye(len(CLASSES), dtype=np.float32)[[row[2] for row in rows]].reshape(-1, len(CLASSES))
    return NucleiTable(rings.xy, rings.offsets, centres, score, score, score, probs, np.zeros(len(rows), np.int64))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tissue = shapely.box(0, 0, 800, 1000)
    lost = Accounting(TileCounts(processed=9, failed=1), failed=Lost((LOST,), 0.0025))
    made = made_from(mpp=1.0, size=1000)
    return publish_nuclei(tmp_path_factory.mktemp("counts"), squares(NUCLEI), tissue, made, accounting=lost)


def feature(shape: Any, name: str = "", kind: str = "", **properties: Any) -> dict[str, Any]:
    """As QuPath exports an annotation."""
    said = {"objectType": "annotation", **({"name": name} if name else {})}
    said |= {"classification": {"name": kind, "color": [200, 0, 0]}} if kind else {}
    return {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": said | properties}


def drawn(path: Path, features: Sequence[Any], scale: float = 1.0) -> Path:
    scaled = [
        feature(shapely.transform(shape, lambda xy: xy * scale), name, kind) for name, kind, shape in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": scaled}))
    return path


def test_regions_are_counted_as_by_hand(store: Path, tmp_path: Path) -> None:
    rows = count(store, Question(regions=drawn(tmp_path / "r.geojson", DRAWN))).rows
    assert [(row["region"], row["name"], row["region_class"]) for row in rows] == [
        (1, "ring", "Tumor"), (2, "nest", "Stroma"), (3, "strip", ""), (4, "", "Stroma"),
    ]  # fmt: skip
    by_class = [tuple(row[f"count_{name}"] for name in CLASSES) for row in rows]
    assert by_class == [(2, 1, 1), (1, 1, 0), (1, 1, 1), (0, 1, 1)]
    assert [row["nuclei"] for row in rows] == [4, 2, 3, 2]
    assert [row["area_mm2"] for row in rows] == pytest.approx([0.08, 0.01, 0.12, 0.02])
    assert [row["usable_mm2"] for row in rows] == pytest.approx([0.0775, 0.01, 0.0975, 0.02])
    assert rows[0]["per_mm2"] == pytest.approx(4 / 0.0775)
    assert rows[2]["per_mm2_immune"] == pytest.approx(1 / 0.0975)
    assert rows[1]["share_tumour"] == 0.5


def test_a_score_and_a_class_choose_nuclei_afterwards(store: Path, tmp_path: Path) -> None:
    regions = drawn(tmp_path / "r.geojson", DRAWN)
    counted = count(store, Question(("tumour", "stroma"), 0.5, regions=regions))
    assert counted.classes == ("tumour", "stroma")
    assert [row["nuclei"] for row in counted.rows] == [3, 1, 2, 0]
    assert counted.rows[3]["share_tumour"] is None
    assert "count_immune" not in counted.rows[0]


def test_cells_of_a_grid_hold_their_left_and_upper_sides(store: Path) -> None:
    rows = count(store, Question(grid_um=100.0)).rows
    cells = {(row["column"], row["row"]): row for row in rows}
    assert sum(row["nuclei"] for row in rows) == len(NUCLEI)
    assert sum(row["usable_mm2"] for row in rows) == pytest.approx(0.8 - 0.0025)
    assert len(cells) == 80 + 1, "those with tissue, and one that holds a nucleus only"
    assert cells[2, 2]["nuclei"] == 2
    assert (cells[3, 3]["nuclei"], cells[3, 3]["usable_mm2"]) == (2, pytest.approx(0.0075))
    assert (cells[3, 2]["count_tumour"], cells[4, 2]["count_tumour"], cells[6, 6]["nuclei"]) == (1, 1, 1)
    outside = cells[8, 4]
    assert (outside["x0_um"], outside["usable_mm2"], outside["nuclei"], outside["per_mm2"]) == (800, 0, 1, None)


def test_the_slide_as_a_whole_has_the_figures_of_its_summary(store: Path) -> None:
    (row,) = count(store, Question()).rows
    summary = slide_summary(store)
    assert (row["nuclei"], row["name"]) == (len(NUCLEI), "slide")
    for name in ("usable_mm2", *(f"{figure}_{c}" for figure in ("count", "per_mm2", "share") for c in CLASSES)):
        assert row[name] == pytest.approx(summary[name]), name


@st.composite
def tilings(draw: st.DrawFn) -> tuple[list[Any], Float64]:
    """Cells of a Voronoi diagram that share their corners exactly, and points: any, corners, middles of sides."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sites = shapely.MultiPoint(rng.uniform(0, 100, (draw(st.integers(2, 12)), 2)))
    cells = list(shapely.get_parts(shapely.voronoi_polygons(sites, extend_to=shapely.box(-50, -50, 150, 150))))
    corners = np.unique(shapely.get_coordinates(cells), axis=0)
    ring = shapely.get_coordinates(cells[0])
    points = np.vstack([rng.uniform(0, 100, (20, 2)), corners, (ring[1:] + ring[:-1]) / 2])
    return cells, points


@given(tilings())
@settings(max_examples=60, deadline=None)
def test_each_nucleus_is_in_exactly_one_region_of_a_tiling(tiling: tuple[list[Any], Float64]) -> None:
    cells, xy = tiling
    shapes = np.array([shapely.MultiPolygon([cell]) for cell in cells], object)
    whole = shapely.union_all(cells)
    within = np.flatnonzero(shapely.contains_xy(whole, *xy.T))
    row, _ = Regions(shapes, ("",) * len(cells), ("",) * len(cells)).places(xy)
    assert np.bincount(row, minlength=len(xy))[within].tolist() == [1] * len(within)


@given(st.integers(1, 400), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_grid_counts_each_nucleus_once_and_all_of_the_tissue(edge: int, seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.integers(0, 500, (50, 2)) if whole else rng.uniform(0, 500, (50, 2))
    grid = Grid.over(500, 500, float(max(edge, 20)))
    row, cell = grid.places(xy.astype(np.float64))
    boxes = shapely.box(*grid.boxes(cell).T)
    assert row.tolist() == list(range(50))
    assert all(holds(box, point[None])[0] for box, point in zip(boxes, xy.astype(np.float64), strict=True))
    tissue = np.array([shapely.Point(200, 250).buffer(180, quad_segs=4), shapely.box(450, 0, 500, 500)], object)
    every = shapely.box(*grid.boxes(np.arange(len(grid))).T)
    assert areas_within(every, tissue).sum() == pytest.approx(shapely.area(tissue).sum(), rel=1e-9)


def test_row_groups_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = drawn(tmp_path / "r.geojson", [("a", "", shapely.Point(1500, 1500).buffer(900)), ("b", "", STRIP)])
    answers = []
    for rows in (16384, 7):
        monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", rows)
        one_store = publish_nuclei(tmp_path / str(rows), some_nuclei(400, size=3000))
        answers.append([count(one_store, q).rows for q in (Question(regions=regions), Question(grid_um=200))])
    assert answers[0] == answers[1]


def test_micrometres_are_read_as_such(store: Path, tmp_path: Path) -> None:
    tissue, made = shapely.box(0, 0, 800, 1000), made_from(mpp=0.5, size=1000)
    halves = publish_nuclei(tmp_path, squares(NUCLEI), tissue, made)
    rows = count(halves, Question(regions=drawn(tmp_path / "um.geojson", DRAWN, 0.5), unit_um=True)).rows
    assert [row["nuclei"] for row in rows] == [4, 2, 3, 2]
    assert rows[0]["area_mm2"] == pytest.approx(0.02)


def test_what_crosses_itself_or_the_slide_is_mended_and_counted(tmp_path: Path) -> None:
    bow = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    features = [feature(bow, "bow"), feature(shapely.box(900, 900, 1200, 1200)), feature(shapely.Point(5, 5))]
    features.append(feature(STRIP, objectType="detection"))
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(features))
    regions = read_regions(path, 1000, 1000)
    assert (regions.mended, regions.cut, regions.passed_over) == (1, 1, 2)
    assert shapely.area(regions.shapes).tolist() == [5000, 10_000]


OFF = shapely.box(5000, 5000, 6000, 6000)
GLASS = shapely.box(900, 100, 950, 200)
FLAT = shapely.Polygon([(0, 0), (10, 10), (20, 20)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([("far", "", OFF)], r"region 1 \(far\).*lies wholly off the slide of 1000 x 1000 px.*--unit um"),
        ([("ok", "", RING), ("far", "", OFF)], r"region 2 \(far\)"),
        ([("glass", "", GLASS)], "none of its regions meets usable tissue"),
        ([("flat", "", FLAT)], "has no area"),
        ([("point", "", shapely.Point(1, 1))], "it holds no region"),
        ("{", "no JSON"),
        ("[1]", "is not a GeoJSON feature collection"),
        ('{"type":"Polygon","coordinates":[[[0,0],["a",1],[2,2]]]}', "malformed coordinates"),
        ('{"type":"Polygon","coordinates":[[[0,0],[NaN,1],[2,2],[0,0]]]}', "not a finite number"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_regions_that_does_not_fit_is_named_and_nothing_is_written(
    store: Path, tmp_path: Path, content: Any, said: str
) -> None:
    path, out = tmp_path / "r.geojson", tmp_path / "out"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        drawn(path, content)
    with pytest.raises(UsageError, match=said) as error:
        write_counts([Subject(store, "x", Question(regions=path))], out / "counts.csv")
    assert str(path) in str(error.value)
    assert not out.exists()


def test_a_store_or_a_question_that_does_not_fit_is_named(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, newer, flipped = (tmp_path / f"{name}.zarr" for name in ("damaged", "newer", "flipped"))
    for copy in (damaged, newer, flipped):
        shutil.copytree(store, copy)
    with (flipped / "shapes/nuclei/shapes.parquet").open("r+b") as file:
        file.seek(40)
        file.write(b"\xff")
    (damaged / "manifest.json").unlink()
    manifest = json.loads((newer / "manifest.json").read_text()) | {"format": 99}
    manifest["digest"] = manifests.digest(manifest)
    (newer / "manifest.json").write_text(json.dumps(manifest))
    lost = manifests.read(store)
    out = tmp_path / "counts.csv"
    for subject, question, said in (
        (damaged, Question(), "is missing"),
        (newer, Question(), "has format 99"),
        (flipped, Question(), "other content than was published"),
        (store, Question(("imune",)), "no such class"),
        (store, Question(positive_above=0.2), "features STORE --dab"),
        (store, Question(grid_um=0.01), "more than"),
    ):
        with pytest.raises((UsageError, StorageError), match=said):
            write_counts([Subject(store, "ok", Question()), Subject(subject, "x", question)], out)
    monkeypatch.setattr("wsi_nuc.counting.count.verified_manifest", lambda _: lost | {"counts": {"nuclei": 12}})
    with pytest.raises(StorageError, match="wsi-nuc verify"):
        write_counts([Subject(store, "x", Question())], out)
    assert not out.exists()


@pytest.mark.parametrize("operation", ["write", "fsync", "close", "rename"])
def test_a_disk_that_fails_leaves_what_was_there(store: Path, tmp_path: Path, operation: str) -> None:
    out = tmp_path / "counts.csv"
    out.write_text("before")
    with failing(0, errno.ENOSPC, only=operation), pytest.raises(StorageError, match="space"):
        write_counts([Subject(store, "x", Question())], out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "before"


def test_a_store_without_nuclei_or_tissue_has_rows_without_densities(tmp_path: Path) -> None:
    empty = publish_nuclei(tmp_path, some_nuclei(0), shapely.Polygon(), made_from(mpp=1.0, size=1000))
    (row,) = count(empty, Question()).rows
    assert (row["nuclei"], row["usable_mm2"], row["per_mm2"], row["share_tumour"]) == (0, 0, None, None)
    assert count(empty, Question(grid_um=100)).rows == []
    (row,) = count(empty, Question(regions=drawn(tmp_path / "r.geojson", DRAWN[:1]))).rows
    assert row["nuclei"] == 0


def test_both_kinds_of_file_hold_the_same_and_say_what_their_columns_mean(store: Path, tmp_path: Path) -> None:
    subjects = [
        Subject(store, "=a", Question(grid_um=500), patient="P1"),
        Subject(store, "b", Question(grid_um=500)),
    ]
    for suffix in ("csv", "parquet"):
        assert write_counts(subjects, tmp_path / f"counts.{suffix}") == 8
    table = pq.read_table(tmp_path / "counts.parquet")
    rows = list(csv.DictReader((tmp_path / "counts.csv").open()))
    assert list(rows[0]) == table.column_names
    assert rows[0]["slide"] == "'=a", "a spreadsheet takes it for text"
    assert [int(row["nuclei"]) for row in rows] == table["nuclei"].to_pylist()
    assert [row["patient"] for row in rows] == ["P1"] * 4 + [""] * 4
    for field in table.schema:
        assert field.metadata[b"about"].decode() == find(COLUMNS, field.name).about
    assert {column.name for column in columns_of(Question(positive_above=1.0), ["{class}"], True)} | {
        column.name for column in columns_of(Question(grid_um=1.0), [], True)
    } == {column.name for column in COLUMNS}


def test_the_slide_as_a_region_holds_what_lies_on_its_upper_left_sides() -> None:
    row, _ = whole_slide(10, 10).places(np.array([[0.0, 0.0], [0.0, 5.0], [9.9, 9.9]]))
    assert row.tolist() == [0, 1, 2]


def test_the_command_counts_a_folder_of_stores_and_a_cohort(store: Path, tmp_path: Path) -> None:
    stores, regions = tmp_path / "stores", tmp_path / "regions"
    regions.mkdir()
    for name in ("a.svs", "b.svs"):
        shutil.copytree(store, stores / f"{name}.zarr")
        drawn(regions / f"{Path(name).stem}.geojson", DRAWN)
    done = called(stores, "--by", regions, "--out", tmp_path / "c.csv", "--class", "tumour", "-q")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert [(row["slide"], row["nuclei"]) for row in rows] == [
        (name, number) for name in ("a.svs", "b.svs") for number in ("2", "1", "1", "0")
    ]
    slide = tmp_path / "s.svs"
    write_slide(slide, SynthSpec(size=512, mpp=0.25, seed=1))
    listed = write_list(tmp_path / "l.csv", "slide,id,patient", f"{slide},s1,P1", "gone.svs,s2,P1")
    folder, _ = planned(tmp_path / "cohort", listed)
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    done = called(folder.root, "--grid", "0.05mm", "--out", tmp_path / "g.parquet")
    assert done.exit_code == 0
    assert "1 slides are not done and left out" in done.stderr
    table = pq.read_table(tmp_path / "g.parquet").to_pandas()
    assert (set(table.slide), set(table.patient)) == ({"s1"}, {"P1"})
    assert table.nuclei.sum() == manifests.read(folder.store("s1"))["counts"]["nuclei"] > 50


def called(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["count", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grid", "100"], "100um"),
        (["--grid", "100um", "--by", "x"], "leave one of them out"),
        (["--by", "x", "--unit", "mm"], "px or um"),
        (["--out", "x.xlsx"], ".csv or .parquet"),
        (["other.zarr"], "published store"),
        (["--by", "folder"], "SLIDE.geojson for each"),
    ],
)
def test_wrong_calls_say_what_is_right(store: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "c.csv")]
    done = called(store, store, *arguments, *out)
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception).replace("Leave", "leave")
