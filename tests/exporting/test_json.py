"""What the JSON formats promise beyond the shared tests: the fields that scripts read, and where pixels lie."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest

from tests.features.build import made_from, publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.exporting.export import export


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_nuclei(tmp_path_factory.mktemp("store"), nuclei(40, size=512), made=made_from(size=512))


@pytest.fixture(scope="module")
def truth(store: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(store / "shapes/nuclei/shapes.parquet")


def test_coco_draws_the_pixels_of_the_polygon(store: Path, truth: geopandas.GeoDataFrame, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    export(store, "coco", tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    (image,) = coco.dataset["images"]
    assert (image["file_name"], image["width"], image["height"]) == ("x.svs", 512, 512)
    shifts = []
    for annotation, shape in zip(coco.dataset["annotations"], truth.geometry, strict=True):
        x0, y0, width, height = annotation["bbox"]
        assert (x0, y0, x0 + width, y0 + height) == pytest.approx(shape.bounds, abs=2e-4)
        assert annotation["area"] == pytest.approx(shape.area, abs=1e-4)
        rows, columns = np.nonzero(coco.annToMask(annotation))
        assert len(rows) == pytest.approx(shape.area, rel=0.15)
        # Pixel i covers [i, i + 1).
        shifts.append((columns.mean() + 0.5 - shape.centroid.x, rows.mean() + 0.5 - shape.centroid.y))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1
    assert [a["id"] for a in coco.dataset["annotations"]] == truth.index.tolist()
    assert [a["score"] for a in coco.dataset["annotations"]] == pytest.approx(truth.score.tolist(), abs=1e-4)


@pytest.mark.parametrize("format", ["cellvit", "hovernet"])
def test_scripts_of_cellvit_and_hovernet_find_their_fields(
    format: str, store: Path, truth: geopandas.GeoDataFrame, tmp_path: Path
) -> None:
    export(store, format, tmp_path / "cells.json")
    document = json.loads((tmp_path / "cells.json").read_text())
    if format == "hovernet":
        assert document["mag"] == 40
        assert [int(number) for number in document["nuc"]] == truth.index.tolist()
        cells = list(document["nuc"].values())
    else:
        assert document["wsi_metadata"]["base_mpp"] == 0.25
        assert document["wsi_metadata"]["base_magnification"] == 40
        cells = document["cells"]
    assert document["type_map"] == {"0": "Background"} | dict(zip("123", CLASSES, strict=True))
    for cell, (_, row) in zip(cells, truth.iterrows(), strict=True):
        assert document["type_map"][str(cell["type"])] == row["class"]
        assert cell["type_prob"] == pytest.approx(row.score, abs=1e-4)
        # Corners of pixels are whole numbers, rows come before columns in the box, x before y elsewhere.
        assert np.ravel(cell["contour"]) == pytest.approx(np.ravel(row.geometry.exterior.coords[:-1]), abs=1e-4)
        assert cell["centroid"] == pytest.approx(row.geometry.centroid.coords[0], abs=1e-4)
        x0, y0, x1, y1 = row.geometry.bounds
        assert np.ravel(cell["bbox"]) == pytest.approx([y0, x0, y1, x1], abs=1e-4)
