"""A user's polygons: every way they are wrapped, and every way they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import mapping

from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.tissue import geojson
from wsi_nuc.tissue.geojson import parse_polygons, read_polygons
from wsi_nuc.types import Level, SlideInfo

INFO = SlideInfo("array", "", 1000, 800, (Level(1000, 800, 1.0),), None, "")
SQUARE = shapely.box(100, 100, 200, 200)
RING = SQUARE.buffer(50).difference(SQUARE)
GEOMETRY = mapping(SQUARE)


def feature(geometry: object, **properties: object) -> dict[str, object]:
    return {"type": "Feature", "id": "b7", "geometry": geometry, "properties": properties}


WRAPPED = {
    "geometry": GEOMETRY,
    "multi": mapping(shapely.MultiPolygon([SQUARE])),
    "feature": feature(GEOMETRY, objectType="annotation"),
    "features": [feature(GEOMETRY)],
    "collection": {"type": "FeatureCollection", "features": [feature(GEOMETRY)]},
    "geometries": {"type": "GeometryCollection", "geometries": [GEOMETRY]},
    "beside points": [feature({"type": "Point", "coordinates": [1, 2]}), feature(None), feature(GEOMETRY)],
    "twice": [feature(GEOMETRY), feature(GEOMETRY)],
    "with z": {"type": "Polygon", "coordinates": [[[*xy, 0] for xy in SQUARE.exterior.coords]]},
}


def write(folder: Path, document: object) -> str:
    path = folder / "roi.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


@pytest.mark.parametrize("how", WRAPPED)
def test_a_polygon_is_found_however_it_is_wrapped(tmp_path: Path, how: str) -> None:
    assert read_polygons(write(tmp_path, WRAPPED[how]), INFO).equals(SQUARE)


def test_holes_are_kept_and_a_crossing_outline_is_repaired(tmp_path: Path) -> None:
    assert read_polygons(write(tmp_path, mapping(RING)), INFO).area == pytest.approx(RING.area)
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    repaired = read_polygons(write(tmp_path, bow_tie), INFO)
    assert repaired.is_valid
    assert repaired.area == pytest.approx(50)


def test_polygons_are_cut_at_the_slide(tmp_path: Path) -> None:
    path = write(tmp_path, mapping(shapely.box(900, 700, 5000, 5000)))
    assert read_polygons(path, INFO).equals(shapely.box(900, 700, 1000, 800))


WRONG = {
    "no JSON": ("{'type':", "no JSON"),
    "binary": ("\x00\x01", "no JSON"),
    "a number": (7, "neither a feature nor a geometry"),
    "a list of numbers": ([1, 2], "neither a feature nor a geometry"),
    "empty": ([], "no polygon"),
    "points only": ({"type": "Point", "coordinates": [1, 2]}, "no polygon"),
    "a flat line": ({"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [9, 9], [0, 0]]]}, "has an area"),
    "NaN": ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 5], [9, 0], [0, 0]]]}', "finite"),
    "infinite": ('{"type": "Polygon", "coordinates": [[[0, 0], [1e999, 5], [9, 0], [0, 0]]]}', "finite"),
    "a huge integer": (
        f'{{"type": "Polygon", "coordinates": [[[0, 0], [1{"0" * 400}, 5], [9, 0]]]}}',
        "malformed",
    ),
    "a huge float": ({"type": "Polygon", "coordinates": [[[0, 0], [1e300, 5], [9, 0]]]}, "finite"),
    "two vertices": ({"type": "Polygon", "coordinates": [[[0, 0], [5, 5]]]}, "malformed"),
    "text": ({"type": "Polygon", "coordinates": [[["a", "b"], [5, 5], [5, 6]]]}, "malformed"),
    "no coordinates": ({"type": "Polygon"}, "malformed"),
    "too deep": ("[" * 200_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_at_fault_is_named_with_the_cause(tmp_path: Path, name: str) -> None:
    document, cause = WRONG[name]
    path = write(tmp_path, document)
    with pytest.raises(UsageError, match=cause) as caught:
        read_polygons(path, INFO)
    assert caught.value.subject == path
    assert "level-0 pixels" in caught.value.remedy


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.geojson", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_polygons(str(path), INFO)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geojson, "LARGEST_BYTES", 10)
    with pytest.raises(UsageError, match="more than the 10 that are read"):
        read_polygons(write(tmp_path, GEOMETRY), INFO)


@pytest.mark.parametrize("shift", [(-500, 0), (2000, 0), (0, 5000)])
def test_polygons_off_the_slide_are_an_error_with_the_remedy(tmp_path: Path, shift: tuple[int, int]) -> None:
    away = shapely.transform(SQUARE, lambda xy: xy + shift)
    with pytest.raises(SlideError, match=r"off the slide of 1000 x 800 px.*[Mm]icrometres"):
        read_polygons(write(tmp_path, mapping(away)), INFO)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["Polygon", "MultiPolygon", "Feature", "FeatureCollection", "Odd"])},
            optional=dict.fromkeys(("coordinates", "geometry", "features", "geometries"), inner),
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(values)
def test_no_document_whatever_ends_in_anything_but_polygons_or_a_clear_error(document: object) -> None:
    try:
        polygons = parse_polygons("roi.geojson", document)
    except UsageError as error:
        subject = error.subject
    else:
        subject = "roi.geojson" if polygons.is_valid and polygons.area > 0 else "an invalid result"
    assert subject == "roi.geojson"
