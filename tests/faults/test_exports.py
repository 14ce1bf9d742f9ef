"""An export to a disk that runs full: it says so, and leaves nothing but what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import SmallDisk, remount
from tests.features.build import publish_nuclei
from tests.store.build import nuclei
from wsi_nuc.errors import StorageError
from wsi_nuc.exporting.export import export
from wsi_nuc.exporting.registry import FORMATS, format_of

COUNT = 2_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_nuclei(tmp_path_factory.mktemp("store"), nuclei(COUNT))


@pytest.mark.parametrize("format", FORMATS)
def test_row_36_export_to_a_disk_that_runs_full(
    format: str, store: Path, tmp_path: Path, small_disk: SmallDisk
) -> None:
    name = f"cells{format_of(format).SUFFIX}"
    export(store, format, tmp_path / name)
    whole = tmp_path / name
    sizes = [whole.stat().st_size] if whole.is_file() else [path.stat().st_size for path in whole.rglob("*")]
    disk = small_disk(max(8, sum(sizes) * 3 // 4 // 1024))
    with pytest.raises(StorageError, match="No space left on device"):
        export(store, format, disk / name)
    assert list(disk.iterdir()) == []
    remount(disk, "size=64m")
    assert export(store, format, disk / name) == COUNT
