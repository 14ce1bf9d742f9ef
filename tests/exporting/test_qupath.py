"""QuPath's GeoJSON: the fields that QuPath reads, and the script that loads the file."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.exporting.build import CLASS_NAMES, RINGS, known_nuclei, known_store
from tests.features.build import publish_nuclei
from wsi_nuc.errors import UsageError
from wsi_nuc.exporting.export import Choice, export

# What QuPath reads of an object (QuPathTypeAdapters). What it does not know is left away in silence, so nothing
# else may be there.
POINT = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
BYTE = {"type": "integer", "minimum": 0, "maximum": 255}


def _strict(required: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": required, "required": list(required), "additionalProperties": False}


FEATURE = _strict(
    {
        "type": {"const": "Feature"},
        "id": {"type": "string", "format": "uuid"},
        "geometry": _strict(
            {
                "type": {"const": "Polygon"},
                "coordinates": {
                    "type": "array",
                    "items": {"type": "array", "items": POINT, "minItems": 4},
                    "minItems": 1,
                    "maxItems": 1,
                },
            }
        ),
        "properties": _strict(
            {
                "objectType": {"const": "detection"},
                "classification": _strict(
                    {
                        "name": {"type": "string", "minLength": 1, "pattern": "^[^\n]+$"},
                        "color": {"type": "array", "items": BYTE, "minItems": 3, "maxItems": 3},
                    }
                ),
                "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
            }
        ),
    }
)
COLLECTION = _strict({"type": {"const": "FeatureCollection"}, "features": {"type": "array", "items": FEATURE}})
PARSE = (
    "import org.codehaus.groovy.control.*; def unit = new CompilationUnit(); unit.addSource(new File(args[0])); "
    "unit.compile(Phases.CONVERSION)"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return known_store(tmp_path_factory.mktemp("known"))


def features(store: Path, out: Path, choice: Choice | None = None) -> list[dict[str, Any]]:
    export(store, "qupath", out, choice)
    packed = out.suffix == ".gz"
    document = json.loads(gzip.decompress(out.read_bytes()) if packed else out.read_bytes())
    jsonschema.validate(document, COLLECTION, format_checker=jsonschema.FormatChecker())
    listed: list[dict[str, Any]] = document["features"]
    return listed


@pytest.mark.parametrize("name", ["cells.geojson", "cells.geojson.gz"])
def test_the_fields_are_those_that_qupath_reads(name: str, store: Path, tmp_path: Path) -> None:
    detections = features(store, tmp_path / name)
    assert [detection["properties"]["classification"]["name"] for detection in detections] == list(CLASS_NAMES)
    assert len({tuple(detection["properties"]["classification"]["color"]) for detection in detections}) == 3
    numbers = [uuid.UUID(detection["id"]).hex[-12:] for detection in detections]
    assert numbers == ["000000000001", "000000000002", "000000000003"]


def test_coordinates_are_level_0_pixels_from_the_corner_of_the_first_one(store: Path, tmp_path: Path) -> None:
    for detection, ring in zip(features(store, tmp_path / "cells.geojson"), RINGS, strict=True):
        (written,) = detection["geometry"]["coordinates"]
        assert written[0] == written[-1]
        assert written[:-1] == [pytest.approx(vertex, abs=5e-5) for vertex in ring.tolist()]


def test_measurements_are_the_numbers_of_the_store_and_missing_ones_are_left_out(
    store: Path, tmp_path: Path
) -> None:
    first, second, third = (
        detection["properties"]["measurements"] for detection in features(store, tmp_path / "cells.geojson")
    )
    assert first == {
        "Detection probability": 0.9,
        "Prompt score": 0.25,
        "Area um^2": 0.75,
        "probability_tumour": 0.1,
        "probability_stroma": 0.8,
        "probability_immune": 0.1,
        "h_mean_od": 0.1,
        "gradient_sd_od_per_um": 1e-7,
        "perimeter_um": 3.5,
        "solidity": 1,
    }
    assert (second["Predicted IoU"], second["gradient_sd_od_per_um"]) == (0.5, pytest.approx(2e12))
    assert "h_mean_od" not in second
    assert "gradient_sd_od_per_um" not in third


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ((), set()),
        (("solidity",), {"solidity"}),
        (("prob*", "h_mean"), {"probability_tumour", "probability_stroma", "probability_immune", "h_mean_od"}),
    ],
)
def test_only_the_wanted_columns_of_the_table_are_written(
    columns: tuple[str, ...], named: set[str], store: Path, tmp_path: Path
) -> None:
    (first, *_) = features(store, tmp_path / "cells.geojson", Choice(measured=columns))
    assert (
        first["properties"]["measurements"].keys() - {"Detection probability", "Prompt score", "Area um^2"}
        == named
    )


def test_a_column_that_is_not_there_is_named_with_the_nearest(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean solidity"):
        export(store, "qupath", tmp_path / "cells.geojson", Choice(measured=("solidty",)))


def test_names_of_classes_are_escaped_and_one_that_qupath_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ('a "quoted" \\ ü', "stroma", "im\nmune")
    monkeypatch.setattr("tests.features.build.CLASSES", odd)
    store = publish_nuclei(tmp_path / "store", known_nuclei())
    with pytest.raises(UsageError, match="cannot hold a class called 'im"):
        export(store, "qupath", tmp_path / "out" / "cells.geojson")
    assert not (tmp_path / "out").exists()
    (second,) = features(store, tmp_path / "out" / "cells.geojson", Choice(classes=odd[:1]))
    assert second["properties"]["classification"]["name"] == odd[0]
    assert (tmp_path / "out" / "cells.geojson").read_bytes().isascii()


@pytest.mark.parametrize("name", ["cells.geojson", 'x $HOME "é".geojson.gz'])
def test_groovy_parses_the_script_that_comes_along(name: str, store: Path, tmp_path: Path) -> None:
    export(store, "qupath", tmp_path / name)
    script = tmp_path / f"{name}.groovy"
    assert f"def name = {json.dumps(name)}".replace("$", "\\$") in script.read_text(encoding="ascii")
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=r"\.groovy: exists"):
        export(store, "qupath", tmp_path / name)
    java, groovy = shutil.which("java"), shutil.which("groovy")
    if java is None or groovy is None:
        pytest.skip("Groovy or Java is not installed")
    environment = {**os.environ, "JAVA_HOME": str(Path(java).resolve().parents[1])}
    command = [groovy, "-e", PARSE, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
