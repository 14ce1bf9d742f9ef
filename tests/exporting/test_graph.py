"""The graph as networkx and torch read it, against the features that are measured on it."""

from __future__ import annotations

from pathlib import Path

import geopandas
import networkx
import numpy as np
import pandas
import pytest
import torch

from tests.features.build import MPP, publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.exporting.export import Choice, export
from wsi_nuc.features.neighbourhood import LARGEST_CIRCLE_UM, Scene, neighbourhood_features
from wsi_nuc.store.reading import NucleiFile


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of many small row groups, so that edges cross their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", 64)
        path = publish_nuclei(tmp_path_factory.mktemp("store"), nuclei(1500, size=2048))
    with NucleiFile(path) as file:
        assert file.groups > 20
    return path


def graph(store: Path, out: Path, choice: Choice | None = None) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    export(store, "graph", out, choice)
    return pandas.read_parquet(out / "nodes.parquet"), pandas.read_parquet(out / "edges.parquet")


def test_degrees_and_lengths_are_those_of_the_features(store: Path, tmp_path: Path) -> None:
    truth = geopandas.read_parquet(store / "shapes/nuclei/shapes.parquet")
    nodes, edges = graph(store, tmp_path / "graph")
    assert nodes.id.tolist() == truth.index.tolist()
    assert nodes.area_um2.tolist() == truth.area_um2.tolist()
    assert (edges.source < edges.target).all()
    # All nuclei as a single group, as the features would see them in a small store.
    scene = Scene(
        truth[["x", "y"]].to_numpy() * MPP, truth.class_id.to_numpy(np.int64), truth.area_um2.to_numpy(),
        own=len(truth), earlier=np.zeros(0, np.bool_),
    )  # fmt: skip
    expected = neighbourhood_features(scene, CLASSES)
    read = networkx.from_pandas_edgelist(edges, edge_attr="length_um")
    degree = expected["delaunay_degree"]
    assert [read.degree(node) if node in read else 0 for node in nodes.index] == degree.tolist()
    total = [read.degree(node, "length_um") if node in read else 0 for node in nodes.index]
    assert total == pytest.approx(np.where(degree > 0, degree * expected["delaunay_edge_mean_um"], 0))


def test_edge_index_is_that_of_torch_geometric(store: Path, tmp_path: Path) -> None:
    nodes, edges = graph(store, tmp_path / "graph")
    edge_index = torch.from_numpy(edges[["source", "target"]].to_numpy().T.copy())
    assert (edge_index.dtype, edge_index.shape) == (torch.int64, (2, len(edges)))
    assert len(edges) > 2 * len(nodes)
    places = torch.from_numpy(nodes[["x_um", "y_um"]].to_numpy())
    length = (places[edge_index[0]] - places[edge_index[1]]).norm(dim=1)
    assert length.numpy() == pytest.approx(edges.length_um.to_numpy())
    assert length.max() <= 2 * LARGEST_CIRCLE_UM


def test_chosen_nuclei_have_only_each_other_as_neighbours(store: Path, tmp_path: Path) -> None:
    nodes, edges = graph(store, tmp_path / "graph", Choice(("immune",)))
    assert set(nodes["class"]) == {"immune"}
    assert 0 < edges.target.max() < len(nodes) < 1500
    nothing, no_edges = graph(store, tmp_path / "none", Choice(min_score=1.0))
    assert (len(nothing), len(no_edges)) == (0, 0)
    assert no_edges.columns.tolist() == edges.columns.tolist()
