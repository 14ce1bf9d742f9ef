"""OME-Zarr labels as ome-zarr and zarr read them."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Reader
from ome_zarr.writer import write_image

from tests.features.build import MPP, made_from, publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.exporting.export import Choice, export
from wsi_nuc.exporting.registry import COLOURS
from wsi_nuc.rings import Rings
from wsi_nuc.types import Box

SIZE = 4500
"""More than a shard, and no multiple of anything."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of several row groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", 64)
        return publish_nuclei(tmp_path_factory.mktemp("store"), nuclei(600, size=SIZE), made=made_from(size=SIZE))


def drawn(nuclei: geopandas.GeoDataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Ids and numbers of classes: a pixel belongs to the last nucleus that covers its centre."""
    rings, box = Rings.of_polygons(np.asarray(nuclei.geometry)), Box(0, 0, SIZE, SIZE)
    return rings.fill(nuclei.index.to_numpy(), box), rings.fill(nuclei.class_id.to_numpy() + 1, box)


def test_pixels_are_those_of_the_polygons(store: Path, tmp_path: Path) -> None:
    truth = geopandas.read_parquet(store / "shapes/nuclei/shapes.parquet")
    export(store, "labels", tmp_path / "labels.zarr")
    for name, expected in zip(("nuclei", "classes"), drawn(truth), strict=True):
        group = zarr.open_group(tmp_path / "labels.zarr" / name, mode="r")
        levels = [np.asarray(group[f"s{level}"]) for level in range(3)]
        np.testing.assert_array_equal(levels[0], expected)
        np.testing.assert_array_equal(levels[1], expected[::4, ::4])
        np.testing.assert_array_equal(levels[2], expected[::16, ::16])
        assert levels[2].max() > 0


def test_only_chosen_nuclei_are_drawn(store: Path, tmp_path: Path) -> None:
    truth = geopandas.read_parquet(store / "shapes/nuclei/shapes.parquet")
    export(store, "labels", tmp_path / "labels.zarr", Choice(("stroma",)))
    group = zarr.open_group(tmp_path / "labels.zarr/nuclei", mode="r")
    np.testing.assert_array_equal(group["s0"], drawn(truth[truth["class"] == "stroma"])[0])


def test_they_open_alone_and_as_the_labels_of_an_image(store: Path, tmp_path: Path) -> None:
    export(store, "labels", tmp_path / "alone.zarr")
    image = tmp_path / "image.zarr"
    write_image(np.zeros((64, 64), np.uint8), str(image), axes="yx", scale_factors=[])
    export(store, "labels", image / "labels")
    for path in (tmp_path / "alone.zarr", image):
        nodes = {node.metadata["name"]: node for node in Reader(parse_url(path))() if node.load(Label)}
        assert set(nodes) == {"nuclei", "classes"}
        for node in nodes.values():
            assert [level.shape for level in node.data] == [(SIZE, SIZE), (1125, 1125), (282, 282)]
            scales = [steps[0]["scale"] for steps in node.metadata["coordinateTransformations"]]
            assert scales == [[MPP * factor] * 2 for factor in (1, 4, 16)]
            assert [axis["unit"] for axis in node.metadata["axes"]] == ["micrometer"] * 2
        about = nodes["classes"].metadata
        assert [about["properties"][number]["class"] for number in (1, 2, 3)] == list(CLASSES)
        assert np.multiply(about["color"][1][:3], 255) == pytest.approx(COLOURS[0])
