"""Neighbourhoods are those of all nuclei at once, although one row group is computed at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import Delaunay

from tests.features.build import MPP, publish_nuclei
from tests.store.build import CLASSES, nuclei
from wsi_nuc.features.neighbourhood import LARGEST_CIRCLE_UM, Scene, Surroundings, neighbourhood_features
from wsi_nuc.features.registry import NEIGHBOURHOOD, REACH_UM, WITHIN_REACH, features_of
from wsi_nuc.store.reading import NucleiFile
from wsi_nuc.types import Float64, Int64


def scene(xy: Float64, label: Int64) -> Scene:
    return Scene(xy, label, np.ones(len(xy)), len(xy), np.zeros(0, np.bool_))


def random_scene(count: int = 300, seed: int = 0, edge: float = 250.0) -> Scene:
    rng = np.random.default_rng(seed)
    return scene(rng.uniform(0, edge, (count, 2)), rng.integers(0, len(CLASSES), count))


def test_every_column_of_the_table_is_there() -> None:
    names = [feature.name for feature in features_of(CLASSES) if feature.family == "neighbourhood"]
    assert sorted(neighbourhood_features(random_scene(), CLASSES)) == sorted(names)
    assert len(names) > len(NEIGHBOURHOOD)


def test_brute_force_agrees() -> None:
    here = random_scene()
    columns = neighbourhood_features(here, CLASSES)
    apart = np.hypot(*(here.xy_um[:, None] - here.xy_um[None]).transpose(2, 0, 1))
    ordered = np.sort(apart, axis=1)
    for k in (1, 3, 5):
        assert columns[f"neighbour_{k}_um"] == pytest.approx(ordered[:, k])
    assert columns[WITHIN_REACH].tolist() == np.minimum((ordered[:, 1:] <= REACH_UM).sum(axis=1), 5).tolist()
    for radius in (25, 50):
        near = (apart <= radius) & ~np.eye(len(apart), dtype=bool)
        assert columns[f"count_{radius}um"].tolist() == near.sum(axis=1).tolist()
        for k, name in enumerate(CLASSES):
            share = (near & (here.class_id == k)).sum(axis=1) / np.maximum(near.sum(axis=1), 1)
            assert columns[f"share_{radius}um_{name}"] == pytest.approx(share)
    edges = set()
    for corners in Delaunay(here.xy_um).simplices.tolist():
        a, b, c = (here.xy_um[i] for i in corners)
        u, v = b - a, c - a
        radius = np.prod([np.hypot(*s) for s in (u, v, u - v)]) / (2 * abs(u[0] * v[1] - u[1] * v[0]))
        if radius <= LARGEST_CIRCLE_UM:
            first, second, third = corners
            edges |= {frozenset(pair) for pair in ((first, second), (second, third), (first, third))}
    for i in range(0, len(apart), 17):
        lengths = [apart[tuple(edge)] for edge in edges if i in edge]
        assert columns["delaunay_degree"][i] == len(lengths)
        assert columns["delaunay_edge_mean_um"][i] == pytest.approx(np.mean(lengths))
        assert columns["delaunay_edge_sd_um"][i] == pytest.approx(np.std(lengths), abs=1e-6)


def test_row_groups_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All columns, the triangulation too, of groups of 40 nuclei and of all 700 together."""
    table = nuclei(700, seed=2, size=2048)

    def measured(rows: int) -> dict[str, Float64]:
        monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", rows)
        store = publish_nuclei(tmp_path / str(rows), table)
        with NucleiFile(store) as file:
            around = Surroundings(file, MPP, REACH_UM)
            parts = [neighbourhood_features(around.scene(group), CLASSES) for group in range(file.groups)]
        assert len(parts) == -(-700 // rows)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    whole, cut = measured(16384), measured(40)
    for name, values in whole.items():
        assert cut[name] == pytest.approx(values, nan_ok=True, abs=1e-7), name


def test_a_lonely_nucleus_has_no_neighbour() -> None:
    columns = neighbourhood_features(scene(np.array([[0.0, 0.0], [101.0, 0.0]]), np.array([0, 1])), CLASSES)
    for counted in (WITHIN_REACH, "count_50um", "delaunay_degree"):
        assert columns[counted].tolist() == [0, 0]
    # A stated value, so that no column stops a PCA.
    for farthest in ("neighbour_1_um", "neighbour_5_um", "delaunay_edge_mean_um"):
        assert columns[farthest].tolist() == [REACH_UM, REACH_UM]
    for none in ("delaunay_edge_sd_um", "entropy_50um_bits", "share_50um_tumour"):
        assert columns[none].tolist() == [0, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_nuclei_or_nuclei_on_a_line_make_no_triangle(count: int) -> None:
    columns = neighbourhood_features(
        scene(np.arange(count * 2.0).reshape(-1, 2) * 5, np.zeros(count, int)), CLASSES
    )
    assert columns["delaunay_degree"].tolist() == [0] * count
    assert columns["count_50um"].tolist() == [count - 1] * count


def test_turning_and_moving_change_nothing() -> None:
    here = random_scene()
    turn = np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
    moved = scene(here.xy_um @ turn + (40_000, 70_000), here.class_id)
    before, after = neighbourhood_features(here, CLASSES), neighbourhood_features(moved, CLASSES)
    for name, values in before.items():
        assert after[name] == pytest.approx(values, nan_ok=True, abs=1e-6), name
