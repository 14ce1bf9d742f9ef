"""The writer of Zarr against zarr-python as its reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.zarrfile import CHUNK_ROWS, RowArray, ZarrFolder


@pytest.mark.parametrize("rows", [1, 5, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 3])
def test_texts_that_grow_row_by_row_come_back(tmp_path: Path, rows: int) -> None:
    texts = np.array(["", "Kern", "", "ядро"] * (rows // 4 + 1))[:rows]
    folder = ZarrFolder(made_folder(tmp_path) / "store.zarr")
    column = RowArray(folder, "texts", np.zeros(0, "U1"), {})
    for start in range(0, rows, 1000):
        column.append(texts[start : start + 1000])
    column.finish()
    folder.seal({})
    stored = zarr.open_group(tmp_path / "store.zarr", mode="r")["texts"][:]
    assert stored.tolist() == texts.tolist()
