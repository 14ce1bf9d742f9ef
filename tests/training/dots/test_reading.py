"""Dots from files: what is written is read, whatever the form, and what cannot be used is counted or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.dots.drawn import box, feature, multi_points, point, write_csv, write_geojson
from wsi_nuc.errors import UsageError
from wsi_nuc.training.dots.reading import read_csv, read_dots
from wsi_nuc.training.dots.record import Dots

coordinate = st.floats(0, 1e5, allow_nan=False, width=32)
dot = st.tuples(coordinate, coordinate, st.sampled_from(["", "Tumor", "Immune cells", "b"]))


def rows(dots: Dots) -> list[tuple[float, float, str]]:
    """Sorted, as a MultiPoint groups by class."""
    names = [dots.classes[kind] if kind >= 0 else "" for kind in dots.kinds.tolist()]
    return sorted((x, y, name) for (x, y), name in zip(dots.xy.tolist(), names, strict=True))


@given(st.lists(dot, max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_form_of_the_same_dots_reads_the_same(tmp_path: Path, dots: list[tuple[float, float, str]]) -> None:
    xy = np.array([(x + 0.25, y) for x, y, _ in dots]).reshape(-1, 2)
    names = [name for *_, name in dots]
    expected = sorted((x, y, name) for (x, y), name in zip(xy.tolist(), names, strict=True))
    single = write_geojson(tmp_path / "a.geojson", map(point, xy.tolist(), names))
    multi = write_geojson(tmp_path / "b.geojson", multi_points(xy, names))
    table = write_csv(tmp_path / "c.csv", xy, names or [])
    listed = tmp_path / "d.json"
    listed.write_text(json.dumps(json.loads(single.read_text())["features"]))
    for path in (single, multi, table, listed):
        if path != listed or dots:
            assert rows(read_dots(path)) == expected, path.name


@pytest.mark.parametrize(
    ("classification", "name"),
    [("Tumor", "Tumor"), ({"name": "Tumor"}, "Tumor"), ({"names": ["Tumor", "Ki67"]}, "Tumor: Ki67"), (None, "")],
)
def test_every_way_of_quPath_to_write_a_class(tmp_path: Path, classification: Any, name: str) -> None:
    one = feature({"type": "Point", "coordinates": [1, 2]}, classification)
    dots = read_dots(write_geojson(tmp_path / "a.geojson", [one]))
    assert rows(dots) == [(1.0, 2.0, name)]


def test_whole_numbers_of_a_table_mean_centres_and_of_geojson_corners(tmp_path: Path) -> None:
    assert read_dots(write_csv(tmp_path / "a.csv", [[3, 4], [5, 6]])).xy.tolist() == [[3.5, 4.5], [5.5, 6.5]]
    assert read_dots(write_csv(tmp_path / "b.csv", [[3, 4], [5.25, 6]])).xy.tolist() == [[3, 4], [5.25, 6]]
    assert read_dots(write_geojson(tmp_path / "c.geojson", [point([3, 4])])).xy.tolist() == [[3, 4]]


def test_drawn_regions_are_kept_and_outlines_of_cells_are_not(tmp_path: Path) -> None:
    old_cell = box(0, 0, 9, 9, objectType=None) | {"id": "PathCellObject"}
    old_region = box(100, 0, 120, 10, objectType=None) | {"id": "PathAnnotationObject"}
    file = write_geojson(
        tmp_path / "a.geojson",
        [
            box(0, 0, 40, 40),
            box(10, 10, 20, 20, classification={"name": "Ignore*"}),
            old_region,
            old_cell,
            box(50, 50, 60, 60, objectType="detection"),
            box(50, 50, 60, 60, objectType="tile"),
            feature({"type": "LineString", "coordinates": [[0, 0], [1, 1]]}),
            point([5, 5], "a"),
        ],
    )
    dots = read_dots(file)
    assert len(dots) == 1
    assert shapely.area(dots.region) == 40 * 40 - 10 * 10 + 20 * 10
    assert dots.repairs == {
        "outlines of cells, which are not dots (ignored)": 3,
        "objects of type LineString (ignored)": 1,
    }


def test_dots_without_numbers_are_dropped_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.geojson"
    places = '[1, 2], [NaN, 3], [4, Infinity], [], [5], ["x", 1], null'
    geometry = f'{{"type": "MultiPoint", "coordinates": [{places}]}}'
    file.write_text(f'[{{"type": "Feature", "properties": null, "geometry": {geometry}}}]')
    dots = read_dots(file)
    assert dots.xy.tolist() == [[1, 2]]
    assert dots.repairs == {"dots whose coordinates are not numbers (dropped)": 6}
    table = tmp_path / "b.csv"
    table.write_text("x,y\n1,2\nnan,3\n4,inf\n")
    assert read_dots(table).xy.tolist() == [[1.5, 2.5]]
    table.write_text("x,y\n1,two\n")
    with pytest.raises(UsageError, match="two"):
        read_dots(table)


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("no.geojson", None, "does not exist"),
        ("a.geojson", "hello", "no dots of a known kind"),
        ("a.geojson", '{"type": "FeatureCollection", "features": [', "not valid JSON"),
        ("a.geojson", '[{"type": "Feature"}]', "not a GeoJSON feature"),
        ("a.csv", "left,top\n1,2\n", "has no column x, y"),
    ],
)
def test_a_file_without_dots_is_refused_by_name(tmp_path: Path, name: str, text: str | None, cause: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=cause) as error:
        read_dots(tmp_path / name)
    assert name in str(error.value)


def test_a_table_of_several_images(tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    table.write_text("image,x,y,class\na.png,1,2,s\nb.png,3,4,t\na.png,5,6,\n")
    of_image = read_csv(table, by="image")
    assert rows(of_image["a.png"]) == [(1.5, 2.5, "s"), (5.5, 6.5, "")]
    assert rows(of_image["b.png"]) == [(3.5, 4.5, "t")]


def test_the_later_one_of_two_dots_on_a_nucleus_goes() -> None:
    dots = Dots.of(np.array([[0.0, 0], [50, 0], [1, 0], [51, 0], [2.5, 0]]), ["a", "a", "b", "a", "a"])
    cleaned = dots.one_per_nucleus(2)
    assert cleaned.xy.tolist() == [[0, 0], [50, 0], [2.5, 0]]
    assert cleaned.repairs["second dots on one nucleus (dropped)"] == 2
    assert cleaned.repairs["second dots of another class (the first one counts)"] == 1


def test_classes_are_mapped_and_what_does_not_fit_is_named() -> None:
    dots = Dots.of(np.arange(30.0).reshape(-1, 2), ["tum"] * 13 + ["lym", ""])
    own = dots.in_classes({"tum": "tumour", "old": "x"}, None, "f")
    assert own.classes == ("lym", "tumour")
    assert own.kinds.tolist() == [1] * 13 + [0, -1]
    assert own.repairs == {
        "class 'old' of the map that no dot has": 1,
        "class 'lym' that the map lacks (kept as it is)": 1,
    }
    fitted = dots.in_classes({"tum": "tumour", "lym": ""}, ("immune", "tumour"), "f")
    assert fitted.kinds.tolist() == [1] * 13 + [-1, -1]
    assert fitted.repairs == {}
    unused = Dots(dots.xy, dots.kinds, (*dots.classes, "strange"))
    assert unused.in_classes({}, ("tum", "lym"), "f").kinds.tolist() == [0] * 13 + [1, -1]
    assert dots.in_classes({}, ("nucleus",), "f").kinds.tolist() == [0] * 15
    with pytest.raises(UsageError, match="its classes lym are not among"):
        dots.in_classes({"tum": "tumour"}, ("immune", "tumour"), "f")
