"""TIAToolbox's AnnotationStore, against a file that TIAToolbox 2.1.3 wrote (`data/annotationstore.db`).

`tests/compat/test_tiatoolbox.py` opens an export in TIAToolbox itself.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import shapely

from tests.exporting.build import CLASS_NAMES, RINGS, known_store
from wsi_nuc.exporting.export import export

THEIRS = Path(__file__).parent / "data" / "annotationstore.db"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    export(known_store(folder), "annotationstore", folder / "cells.db")
    return folder / "cells.db"


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT type, name, tbl_name FROM sqlite_master ORDER BY name",
        "PRAGMA table_info(annotations)",
        "PRAGMA table_info(metadata)",
        "PRAGMA table_info(rtree)",
        "PRAGMA index_list(annotations)",
        "PRAGMA user_version",
        "SELECT key FROM metadata ORDER BY key",
        "SELECT value FROM metadata WHERE key = 'version'",
        "SELECT DISTINCT objtype, typeof(id), typeof(key), typeof(cx), typeof(cy), typeof(geometry), "
        "typeof(properties), typeof(area) FROM annotations",
    ],
)
def test_the_layout_is_that_of_tiatoolbox(query: str, ours: Path) -> None:
    assert rows(ours, query) == rows(THEIRS, query) != []


def test_tiatoolbox_names_class_and_score_as_the_export_does(ours: Path) -> None:
    (theirs,) = rows(THEIRS, "SELECT properties FROM annotations WHERE id = 1")
    assert json.loads(theirs[0]).keys() == {"type", "prob"}
    properties = [json.loads(text) for (text,) in rows(ours, "SELECT properties FROM annotations ORDER BY id")]
    assert [each["type"] for each in properties] == list(CLASS_NAMES)
    assert properties[0] == {
        "type": "stroma",
        "prob": 0.9,
        "prompt_score": 0.25,
        "area_um2": 0.75,
        "probability_tumour": 0.1,
        "probability_stroma": 0.8,
        "probability_immune": 0.1,
        "h_mean_od": 0.1,
        "gradient_sd_od_per_um": 1e-7,
        "perimeter_um": 3.5,
        "solidity": 1,
    }
    assert "predicted_iou" in properties[1]


def test_outlines_are_plain_wkb_in_level_0_pixels_with_centre_area_and_box(ours: Path) -> None:
    assert dict(rows(ours, "SELECT key, value FROM metadata"))["compression"] == "null"
    query = "SELECT geometry, cx, cy, area, min_x, max_x, min_y, max_y FROM annotations JOIN rtree USING (id)"
    for (wkb, x, y, area, *box), ring in zip(rows(ours, f"{query} ORDER BY id"), RINGS, strict=True):
        polygon = shapely.from_wkb(wkb)
        assert shapely.get_coordinates(polygon)[:-1].tolist() == ring.tolist()
        assert (x, y) == pytest.approx((polygon.centroid.x, polygon.centroid.y), rel=1e-12)
        assert area == pytest.approx(polygon.area, rel=1e-12)
        low_x, low_y, high_x, high_y = polygon.bounds
        assert box == pytest.approx([low_x, high_x, low_y, high_y], rel=1e-6)
