"""Features added to a published store: it is the old or the new one, nothing in between, and of its own slide."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.build import made_from, publish_nuclei
from tests.features.tissue import NAMES, Tissue, measured, picture, slide_and_store
from tests.store.build import CLASSES
from wsi_nuc.errors import SlideError, StorageError
from wsi_nuc.executors.base import SerialExecutor
from wsi_nuc.features.means import feature_means
from wsi_nuc.features.running import add_features
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.store.commit import Published
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import read
from wsi_nuc.store.packing import convert
from wsi_nuc.store.tables import probability_name
from wsi_nuc.store.verify import verify
from wsi_nuc.types import SlideRef

ROOT = Path(__file__).parents[2]


def add(store: Path, slide: SlideRef) -> Published:
    return add_features(made_folder(store.parent) / store.name, slide, SerialExecutor(lambda: None).run)


def table_of(store: Path) -> Any:
    import anndata

    return anndata.read_zarr(store / "tables/nuclei_table")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[SlideRef, Path]:
    return slide_and_store(tmp_path, Tissue.of(25, edge_um=96), 0.5)


def test_columns_come_after_the_probabilities_and_nothing_else_changes(pair: tuple[SlideRef, Path]) -> None:
    slide, store = pair
    before, old = table_of(store), read(store)
    done = add(store, slide)
    after, new = table_of(store), read(store)
    assert done.new
    assert verify(store) == []
    assert list(after.var_names) == [*map(probability_name, CLASSES), *NAMES]
    assert np.array_equal(after.X[:, : len(CLASSES)], before.X)
    expected = measured(slide, store)
    for name in NAMES:
        assert np.array_equal(after[:, name].X[:, 0], expected[name].astype(np.float32), equal_nan=True)
    assert after.obs.equals(before.obs)
    assert after.var.loc["area_um2", ["family", "unit", "range", "empty"]].tolist() == [
        "shape",
        "um2",
        "above 0",
        "never",
    ]
    changed = {name for name in old["files"] if old["files"][name] != new["files"].get(name)}
    table = "tables/nuclei_table"
    assert all(name.startswith((f"{table}/X/", f"{table}/var/", "zarr.json")) for name in changed)
    assert (new["counts"], new["tiles"], new["slide"]) == (old["counts"], old["tiles"], old["slide"])
    assert new["digest"] != old["digest"]


def test_spatialdata_reads_the_store(pair: tuple[SlideRef, Path]) -> None:
    import spatialdata

    slide, store = pair
    add(store, slide)
    elements = spatialdata.read_zarr(store)
    assert elements["nuclei_table"].shape == (25, len(CLASSES) + len(NAMES))
    assert list(elements["nuclei_table"].obs["id"]) == list(elements["nuclei"].index)


def test_a_packed_store_gets_the_same_columns_and_stays_packed(
    pair: tuple[SlideRef, Path], tmp_path: Path
) -> None:
    slide, store = pair
    (tmp_path / "packed").mkdir()
    packed = convert(store, packed=True, keep=True)
    packed = packed.rename(tmp_path / "packed" / packed.name)
    assert add(packed, slide).path == packed
    assert not add(packed, slide).new
    add(store, slide)
    assert read(packed)["files"] == read(store)["files"]
    assert feature_means(packed, 25) == feature_means(store, 25)
    assert [path.name for path in packed.parent.iterdir() if path.name != ".wsi-nuc"] == [packed.name]


def test_a_second_time_there_is_nothing_to_do(pair: tuple[SlideRef, Path]) -> None:
    slide, store = pair
    first = add(store, slide)
    again = add(store, slide)
    assert (again.new, again.manifest["digest"]) == (False, first.manifest["digest"])


def test_a_store_without_nuclei_gets_all_columns(tmp_path: Path) -> None:
    ref = SlideRef(str(picture(tmp_path / "x.png", np.full((300, 300, 3), 240, np.uint8))), mpp=0.5)
    made = made_from(content_sha256(ref), 0.5, 300)
    store = publish_nuclei(tmp_path / "out", NucleiTable.empty(len(CLASSES)), made=made)
    add(store, ref)
    assert verify(store) == []
    assert table_of(store).shape == (0, len(CLASSES) + len(NAMES))


def test_another_slide_is_refused_and_the_store_is_left(pair: tuple[SlideRef, Path], tmp_path: Path) -> None:
    _, store = pair
    digest = read(store)["digest"]
    other_slide = SlideRef(str(picture(tmp_path / "other_slide.png", Tissue.of(9).rgb(0.5))), mpp=0.5)
    with pytest.raises(SlideError, match=r"other_slide\.png: is not the slide .* Pass that one with --slide"):
        add(store, other_slide)
    assert read(store)["digest"] == digest


def test_a_damaged_store_is_named_and_left(pair: tuple[SlideRef, Path]) -> None:
    slide, store = pair
    (store / "shapes/tissue/shapes.parquet").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"shapes/tissue/shapes\.parquet"):
        add(store, slide)


def test_a_store_replaced_meanwhile_is_not_overwritten(pair: tuple[SlideRef, Path], tmp_path: Path) -> None:
    slide, store = pair
    serial = SerialExecutor(lambda: None)

    def replacing(function: Any, tasks: Any) -> Any:
        manifest = json.loads((store / "manifest.json").read_text())
        (store / "manifest.json").write_text(json.dumps({**manifest, "digest": "another"}))
        return serial.run(function, tasks)

    with pytest.raises(StorageError, match="was replaced while"):
        add_features(made_folder(store.parent) / store.name, slide, replacing)
    assert list((store.parent / ".wsi-nuc/staging").iterdir()) == []


def test_row_groups_do_not_show_in_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nuclei in one row group or in groups of seven, with the others of a group in the way of their rings."""
    tissue = Tissue.of(60, edge_um=100)
    tables = []
    for rows in (16384, 7):
        monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", rows)
        slide, store = slide_and_store(tmp_path / str(rows), tissue, 0.5)
        add(store, slide)
        tables.append(table_of(store))
    whole, cut = tables
    assert np.array_equal(whole.obs["id"], cut.obs["id"])
    for name in NAMES:
        assert pytest.approx(whole[:, name].X, rel=1e-6, abs=1e-6) == cut[:, name].X, name


def killed(folder: Path, step: int) -> None:
    command = [sys.executable, "-m", "tests.features.kill_child", str(folder), str(step)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert sum(row[1] == "9" for row in rows) >= len(rows) - 1 > 4
    assert {row[2] for row in rows} <= {"True", "False"}
    assert {"|".join(row[3:]) for row in rows} == {"0|True|True"}


def test_killed_while_adding(tmp_path: Path) -> None:
    killed(tmp_path, 40)


@pytest.mark.slow
def test_killed_more_often_while_adding(tmp_path: Path) -> None:
    killed(tmp_path, 5)
