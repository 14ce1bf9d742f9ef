"""Cells of other programs: the same tests for every format, then broken files and broken outlines."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2e.command import answers, manifest, wsi_nuc
from tests.importing.foreign import WRITERS, cellvit, hovernet, lattice, qupath, spatialdata, tiatoolbox
from wsi_nuc.datasets.jsonstream import objects, value_of
from wsi_nuc.errors import UsageError
from wsi_nuc.importing.build import Imported, ImportRequest, import_cells
from wsi_nuc.importing.outlines import Mender
from wsi_nuc.importing.record import Cells, Wanted, polygon
from wsi_nuc.importing.spool import Spool
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.packing import convert
from wsi_nuc.store.verify import verify
from wsi_nuc.synth import SynthSpec, truth_path, write_slide
from wsi_nuc.types import Level, SlideInfo

SHAPES = "shapes/nuclei/shapes.parquet"


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "tissue.svs"
    write_slide(path, SynthSpec(size=1024, mpp=0.25, seed=5))
    return path


def imported(cells: Path, slide: Path, out: Path, **more: Any) -> Imported:
    return import_cells(ImportRequest(cells, str(slide), out, **more))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_nuclei(kind: str, slide: Path, tmp_path: Path) -> None:
    write, name = WRITERS[kind]
    cells = lattice(500)
    done = imported(write(tmp_path / name, cells), slide, tmp_path / "out")
    assert done.format == kind.partition(",")[0]
    assert (done.repaired, done.dropped) == ({}, {})
    store = done.published.path
    assert verify(store) == []
    nuclei = geopandas.read_parquet(store / SHAPES)
    assert len(nuclei) == 500
    assert nuclei.is_valid.all()
    assert nuclei.area_um2.to_numpy() == pytest.approx(nuclei.area.to_numpy() * 0.25**2)
    rows = zip(nuclei.geometry, nuclei["class"], strict=True)
    assert {(shape.normalize().wkt, name) for shape, name in rows} == {
        (shape.normalize().wkt, name) for shape, name in cells
    }
    assert done.published.manifest["counts"]["classes"] == {"lymphocyte": 167, "stroma": 166, "tumour": 167}


@pytest.mark.parametrize("kind", ["qupath", "spatialdata"])
def test_the_store_opens_in_the_tools_of_users(kind: str, slide: Path, tmp_path: Path) -> None:
    import spatialdata as sd

    from wsi_nuc.features.summary import slide_summary

    write, name = WRITERS[kind]
    done = imported(write(tmp_path / name, lattice(100)), slide, tmp_path / "out")
    opened = sd.read_zarr(done.published.path)
    assert len(opened["nuclei"]) == 100
    sums = {"probability_lymphocyte": 34, "probability_stroma": 33, "probability_tumour": 33}
    assert opened["nuclei_table"].to_df().sum().to_dict() == sums
    assert slide_summary(done.published.path)["nuclei"] == 100


def test_the_truth_of_a_drawn_slide_comes_back(slide: Path, tmp_path: Path) -> None:
    truth = geopandas.read_parquet(truth_path(slide))
    done = imported(truth_path(slide), slide, tmp_path / "out")
    nuclei = geopandas.read_parquet(done.published.path / SHAPES)
    assert len(nuclei) + sum(done.dropped.values()) == len(truth)
    assert nuclei.area.sum() == pytest.approx(truth.area.sum(), rel=0.01)


def test_a_packed_store_is_read_where_it_lies(slide: Path, tmp_path: Path) -> None:
    made = imported(truth_path(slide), slide, tmp_path / "first").published.path
    packed = convert(made, packed=True, keep=True)
    again = imported(packed, slide, tmp_path / "second")
    assert again.format == "spatialdata"
    first, second = (geopandas.read_parquet(path / SHAPES) for path in (made, again.published.path))
    assert first.geometry.equals(second.geometry)
    assert first["class"].tolist() == second["class"].tolist()


def test_types_without_names_keep_their_numbers(slide: Path, tmp_path: Path) -> None:
    cells = hovernet(tmp_path / "cells.json", lattice(30), named=False)
    done = imported(cells, slide, tmp_path / "out")
    assert done.published.manifest["counts"]["classes"] == {"type 1": 10, "type 2": 10, "type 3": 10}


def test_the_same_import_twice_is_one_store(slide: Path, tmp_path: Path) -> None:
    cells = qupath(tmp_path / "cells.geojson", lattice(50))
    first, second = (imported(cells, slide, tmp_path / "out") for _ in range(2))
    assert first.published.new
    assert not second.published.new
    assert first.published.manifest == second.published.manifest
    other = imported(cells, slide, tmp_path / "other")
    assert other.published.manifest["digest"] == first.published.manifest["digest"]


@pytest.mark.slow
def test_features_are_measured_on_foreign_nuclei_and_kept(slide: Path, tmp_path: Path) -> None:
    cells = qupath(tmp_path / "cells.geojson", lattice(50))
    store = imported(cells, slide, tmp_path / "out").published.path
    done = wsi_nuc("features", store, "--slide", slide, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert verify(store) == []
    digest = manifest(store)["digest"]
    again = imported(cells, slide, tmp_path / "out")
    assert not again.published.new
    assert again.published.manifest["digest"] == digest


def test_another_file_does_not_replace_a_store_unasked(slide: Path, tmp_path: Path) -> None:
    first = qupath(tmp_path / "one.geojson", lattice(50))
    second = cellvit(tmp_path / "two.json", lattice(60))
    imported(first, slide, tmp_path / "out")
    with pytest.raises(UsageError, match="--overwrite"):
        imported(second, slide, tmp_path / "out")
    done = imported(second, slide, tmp_path / "out", overwrite=True)
    assert done.published.manifest["counts"]["nuclei"] == 60


def test_no_cells_is_a_valid_store(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "none.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    done = imported(tmp_path / "none.geojson", slide, tmp_path / "out")
    assert verify(done.published.path) == []
    assert len(geopandas.read_parquet(done.published.path / SHAPES)) == 0


def test_broken_outlines_are_mended_or_left_out_and_counted(slide: Path, tmp_path: Path) -> None:
    good = shapely.box(100, 100, 120, 120)
    crossed = shapely.Polygon([(200, 200), (220, 220), (220, 200), (200, 220)])
    holed = good.difference(shapely.box(105, 105, 110, 110))
    parts = shapely.MultiPolygon([shapely.box(300, 300, 320, 320), shapely.box(330, 330, 335, 335)])
    edge, off = shapely.box(-5, 400, 15, 420), shapely.box(5000, 5000, 5020, 5020)
    flat, huge = shapely.Polygon([(1, 1), (2, 2), (3, 3)]), shapely.box(0, 0, 900, 900)
    shapes = [good, crossed, holed, parts, edge, off, flat, huge]
    path = qupath(tmp_path / "cells.geojson", [(shape, "a") for shape in shapes])
    document = json.loads(path.read_text())
    document["features"].append(
        {**document["features"][0], "nucleusGeometry": {"type": "Point", "coordinates": [1, 1]}}
    )
    path.write_text(json.dumps(document))
    done = imported(path, slide, tmp_path / "out")
    assert done.repaired == {
        "crossed themselves": 1,
        "with holes": 1,
        "in several parts": 1,
        "at the edge of the slide or by rounding": 1,
    }
    assert done.dropped == {
        "off the slide": 1,
        "without an area": 1,
        "larger than 200 um": 1,
        "without an outline": 1,
    }
    nuclei = geopandas.read_parquet(done.published.path / SHAPES)
    assert len(nuclei) == 5
    assert nuclei.is_valid.all()
    assert done.published.manifest["repairs"] == 4


coordinate = st.floats(-50, 300) | st.just(float("nan")) | st.integers(-2, 6).map(lambda k: 50.0 * k)
ring = st.lists(st.tuples(coordinate, coordinate), min_size=0, max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.lists(ring, min_size=1, max_size=8), st.sampled_from([0.5, 1.0, 2.0]))
def test_whatever_comes_in_valid_outlines_on_the_slide_come_out(rings: list[Any], scale: float) -> None:
    info = SlideInfo("r", "v", 256, 256, (Level(256, 256, 1.0),), 0.25, "header")
    mender = Mender(info, 0.25, scale)
    shapes = [polygon([vertices]) for vertices in rings]
    out = mender.mend(Cells(shapes, [""] * len(shapes), [1.0] * len(shapes)))
    assert len(out) + sum(mender.dropped.values()) == len(rings)
    for start, stop in zip(out.offsets[:-1], out.offsets[1:], strict=True):
        outline = shapely.Polygon(out.xy[start:stop])
        assert outline.is_valid
        assert outline.area > 0
        assert shapely.box(0, 0, 256, 256).covers(outline)


def test_rows_are_in_spatial_order_however_they_came(tmp_path: Path) -> None:
    info = SlideInfo("r", "v", 20_000, 20_000, (Level(20_000, 20_000, 1.0),), 0.25, "header")
    cells = lattice(2000, pitch=400.0, across=48)
    orders = [np.arange(2000), np.random.default_rng(0).permutation(2000)]
    written = []
    for number, order in enumerate(orders):
        spool, mender = Spool(made_folder(tmp_path) / str(number)), Mender(info, 0.25, 1.0)
        for rows in np.array_split(order, 7):
            shapes, names = zip(*(cells[i] for i in rows), strict=True)
            spool.add(mender.mend(Cells(shapes, names, [1.0] * len(rows))))
        written.append(np.concatenate([outlines.xy for outlines in spool.squares()]))
    np.testing.assert_array_equal(written[0], written[1])


FEATURE = b'{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"coordinates": %b}}]}'


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "format is not known"),
        (b"x,y,class\n1,2,a\n", "format is not known"),
        (b'{"cells": [{"centroid": [1, 2]}], "type_map": {}}', "without a contour"),
        (b'{"mag": 40, "nuc": {"1": {"centroid": [1, 2]}}}', "without a contour"),
        (b'{"mag": 40, "nuc": {"1": {"contour": [[1, 2]', "cut off"),
        (b'{"type": "FeatureCollection", "features": [{"type": "Feature", "geom', "cut off"),
        (b'{"type": "FeatureCollection", "features": [3]}', "where an object is expected"),
        (FEATURE % b"[1]" + b" and more", "not valid JSON"),
        (FEATURE % b"[1e999]", "not valid JSON"),
        (FEATURE % (b"[" + b"9" * 6000 + b"]"), "not valid JSON"),
        (FEATURE % b'["\xff"]', "not valid JSON"),
        (FEATURE % (b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
        (FEATURE % (b'{"a":' * 300 + b"1" + b"}" * 300), "nested too deeply"),
        (FEATURE % (b'["}",' * 100_000), "nested too deeply"),
        (gzip.compress(FEATURE % b"[1]", mtime=0)[:-9], "cannot be read"),
        (b"SQLite format 3\0 and then nothing", "AnnotationStore"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(
    content: bytes, cause: str, slide: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cells"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=cause) as caught:
        imported(path, slide, tmp_path / "out")
    assert caught.value.remedy
    assert not list((tmp_path / "out").glob("*.zarr"))
    assert not list((tmp_path / "out").rglob("import-*"))


def test_cells_of_another_slide_are_refused(slide: Path, tmp_path: Path) -> None:
    far = [(shapely.transform(shape, lambda xy: xy + 50_000), name) for shape, name in lattice(40)]
    with pytest.raises(UsageError, match=r"40 of its cells lie off the slide") as caught:
        imported(tiatoolbox(tmp_path / "store.db", far), slide, tmp_path / "out")
    assert "--scale" in caught.value.remedy


def test_the_class_and_the_element_can_be_chosen(slide: Path, tmp_path: Path) -> None:
    path = spatialdata(tmp_path / "cells.zarr", lattice(30))
    with pytest.raises(UsageError, match="no such column") as caught:
        imported(path, slide, tmp_path / "out", wanted=Wanted(class_column="nonsense"))
    assert "cell_type" in caught.value.remedy
    with pytest.raises(UsageError, match="no such shapes"):
        imported(path, slide, tmp_path / "out", wanted=Wanted(element="nonsense"))
    done = imported(path, slide, tmp_path / "out", wanted=Wanted("cells", "cell_type"))
    assert done.published.manifest["counts"]["nuclei"] == 30


def test_circles_become_outlines(slide: Path, tmp_path: Path) -> None:
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel

    points = geopandas.GeoDataFrame(
        {"radius": [5.0, 10.0]}, geometry=[shapely.Point(50, 50), shapely.Point(200, 99)]
    )
    SpatialData(shapes={"spots": ShapesModel.parse(points)}).write(tmp_path / "spots.zarr")
    done = imported(tmp_path / "spots.zarr", slide, tmp_path / "out")
    nuclei = geopandas.read_parquet(done.published.path / SHAPES)
    assert sorted(nuclei.area) == pytest.approx([np.pi * 25, np.pi * 100], rel=0.02)
    assert set(nuclei["class"]) == {"unclassified"}


@given(st.integers(0, 40), st.integers(0, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_objects_are_read_wherever_chunks_end(
    tmp_path_factory: pytest.TempPathFactory, count: int, indent: int, first: bool
) -> None:
    """Objects of half a megabyte, so that chunks end inside of them."""
    expected = [{"n": i, "text": "ä€ " * ((i * 7919) % 200_000 // 3)} for i in range(count)]
    other = {"x": 1.5, "list": [1, 2]}
    document = other | {"cells": expected} if first else {"cells": expected} | other
    path = tmp_path_factory.getbasetemp() / "objects.json"
    path.write_text(json.dumps(document, indent=indent or None), encoding="utf-8")
    assert list(objects(path, "cells")) == expected
    assert [value_of(path, name) for name in ("x", "list", "none")] == [1.5, [1, 2], None]


def test_numbers_that_are_not_finite_are_nothing_and_words_in_strings_stay(tmp_path: Path) -> None:
    """Python and QuPath up to 0.4 write such numbers; ijson refuses them."""
    words = 'NaN, "NaN", -Infinity \\'
    cell = {"text": words, words: [float("nan"), float("inf"), 1.5, float("-inf")], "last": float("nan")}
    path = tmp_path / "cells.json"
    path.write_text(json.dumps({"before": float("nan"), "cells": [cell] * 5000}))
    kept = {"text": words, words: [None, None, 1.5, None], "last": None}
    assert list(objects(path, "cells")) == [kept] * 5000


def test_an_object_or_a_name_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_nuc.datasets.jsonstream.LARGEST_OBJECT", 1 << 20)
    path = tmp_path / "cells.json"
    for inner in ("1," * (1 << 20), '"' + "x" * (3 << 20), "1" * (3 << 20)):
        path.write_text('{"cells": [{"a": [' + inner)
        with pytest.raises(UsageError, match=r"of more than 1 MiB|without an end"):
            list(objects(path, "cells"))
    path.write_text(json.dumps({"cells": [{"a": "x" * 1000}] * 5000}))
    assert len(list(objects(path, "cells"))) == 5000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cells(tmp_path: Path) -> None:
    peaks = []
    for count in (20_000, 160_000):
        path = tmp_path / f"{count}.json"
        cell = '{"contour": [[1.5,1],[9,1.25],[9,9],[1,9]], "type": 1, "type_prob": 0.9}'
        with path.open("w") as file:
            file.write('{"type_map": {"1": "a"}, "cells": [')
            for index in range(count):
                file.write(("," if index else "") + cell)
            file.write("]}")
        tracemalloc.start()
        assert sum(1 for _ in objects(path, "cells")) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (4 << 20)


def test_the_command_says_what_became_of_the_cells(slide: Path, tmp_path: Path) -> None:
    crossed = shapely.Polygon([(200, 200), (220, 220), (220, 200), (200, 220)])
    path = qupath(tmp_path / "cells.geojson", [*lattice(20), (crossed, "tumour")])
    done = wsi_nuc("import", path, "--slide", slide, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (answer,) = answers(done)
    assert (answer["nuclei"], answer["format"], answer["status"]) == (21, "qupath", "published")
    assert answer["repaired"] == {"crossed themselves": 1}
    assert wsi_nuc("verify", answer["store"]).returncode == 0
    again = wsi_nuc("import", path, "--slide", slide, "--out", tmp_path / "out")
    assert again.returncode == 0
    assert "mended: 1 crossed themselves" in again.stdout
    (tmp_path / "notes.txt").write_text("no cells")
    refused = wsi_nuc("import", tmp_path / "notes.txt", "--slide", slide, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "format is not known" in refused.stderr
