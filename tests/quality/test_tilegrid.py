"""The grid of a run follows from the rows that it left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.build import CORE_PX, publish_store
from wsi_nuc.quality.tilegrid import core_grid
from wsi_nuc.store.manifest import read
from wsi_nuc.store.reading import NucleiFile


def facts(width: int, height: int, total: int) -> dict[str, dict[str, int]]:
    return {"slide": {"width_px": width, "height_px": height}, "tiles": {"total": total}}


def test_the_edge_of_a_core_is_found_to_the_pixel(tmp_path: Path) -> None:
    store = publish_store(tmp_path, count=20_000).path
    assert read(Path(store))["tiles"]["total"] == 256
    with NucleiFile(Path(store)) as file:
        grid = core_grid(file, facts(4096, 4096, 256))
    assert grid is not None
    assert (grid.edge_l0, grid.columns, grid.rows) == (CORE_PX, 16, 16)
    assert grid.boxes_l0()[-1].tolist() == [3840, 3840, 4096, 4096]


@pytest.mark.parametrize("total", [0, 1, 250, 4])
def test_a_grid_that_does_not_fit_is_none(tmp_path: Path, total: int) -> None:
    store = publish_store(tmp_path, count=2000).path
    with NucleiFile(Path(store)) as file:
        assert core_grid(file, facts(4096, 4096, total)) is None
