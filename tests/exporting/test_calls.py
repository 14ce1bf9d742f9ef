"""What a call of an export finds wrong before it writes, and where it writes to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.features.build import publish_nuclei
from tests.store.build import nuclei
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.exporting.export import Choice, export, export_to, planned, targets
from wsi_nuc.store import manifest as manifests


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_nuclei(tmp_path_factory.mktemp("store"), nuclei(100))


def test_mistakes_are_reported_before_a_file_is_made(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.geojson"
    for said, arguments in {
        "Did you mean qupath": {"format": "qupat"},
        "no such class": {"choice": Choice(("imune",))},
        "is missing": {"store": tmp_path},
    }.items():
        given: dict[str, Any] = {"store": store, "format": "qupath", "out": out} | arguments
        with pytest.raises((UsageError, StorageError), match=said):
            export(**given)
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        export(store, "qupath", out)
    assert out.read_bytes() == b"mine"


def test_out_is_the_file_of_one_store_and_a_folder_of_several(store: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    twin = publish_nuclei(tmp_path / "twin", nuclei(1))
    assert targets([store], "qupath", tmp_path / "new") == [tmp_path / "new"]
    assert targets([store], "qupath", tmp_path / "there") == [tmp_path / "there" / "x.svs.geojson"]
    with pytest.raises(UsageError, match="two of the stores have this slide name"):
        targets([store, twin], "qupath", tmp_path / "new")
    for place in (twin, twin / "new", twin / "tables" / "new", store / "zarr.json"):
        with pytest.raises(UsageError, match="is a result of wsi-nuc"):
            targets([store], "qupath", place)


def test_of_several_stores_one_may_lack_a_class_but_not_all(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.features.build.CLASSES", ("tumour", "gland", "vessel"))
    other, out = publish_nuclei(tmp_path / "stores", nuclei(50), name="y.svs.zarr"), tmp_path / "out"
    with pytest.raises(UsageError, match="Did you mean immune"):
        planned([other, store], "qupath", out, Choice(("imune",)))
    choice = Choice(("immune",))
    plan = planned([other, store], "qupath", out, choice)
    counts = [export_to(source, "qupath", path, choice) for source, path in plan]
    assert counts[0] == 0 < counts[1]


def _unfinished(store: Path) -> None:
    (store / "manifest.json").unlink()


def _newer(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text()) | {"format": 99}
    (store / "manifest.json").write_text(json.dumps(manifest | {"digest": manifests.digest(manifest)}))


def _cut_off(store: Path) -> None:
    parquet = store / "shapes/nuclei/shapes.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-1000])


def _one_other_bit(store: Path) -> None:
    parquet = store / "shapes/nuclei/shapes.parquet"
    data = bytearray(parquet.read_bytes())
    data[len(data) // 3] ^= 1
    parquet.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_unfinished, "is missing, so nothing says what was published"),
        (_newer, "has format 99, which this version of wsi-nuc does not know"),
        (_cut_off, "cannot be read"),
        (_one_other_bit, "has other content than was published"),
    ],
)
def test_a_store_that_is_not_whole_is_not_exported(
    harm: Callable[[Path], None], said: str, store: Path, tmp_path: Path
) -> None:
    copy, out = tmp_path / store.name, tmp_path / "out"
    shutil.copytree(store, copy)
    harm(copy)
    with pytest.raises(StorageError, match=said):
        export(copy, "qupath", out / "cells.geojson")
    assert not out.exists()
