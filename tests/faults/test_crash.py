"""Row 8: a tile that crashes whatever process computes it."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.faults.one_run import assert_told, draw, published, run_one
from wsi_nuc.errors import SLIDES
from wsi_nuc.executors import dask
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.run.tally import Tally
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.parts import read_part
from wsi_nuc.types import TileCounts

CRASHING = 1

# A Python that finds this module at its start gets a classical model that ends the process at one tile.
CURSE = textwrap.dedent(
    f"""
    import dataclasses, os, signal
    from wsi_nuc.models import registry

    def cursed(load):
        def load_model(*arguments):
            model = load(*arguments)
            def look(batch):
                if any(tile.index == {CRASHING} for tile in batch.tiles):
                    os.kill(os.getpid(), signal.SIGSEGV)
                return model.look(batch)
            return dataclasses.replace(model, look=look)
        return load_model

    registry.load_model = cursed(registry.load_model)
    """
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiles of the classical model, in one region."""
    return draw(tmp_path_factory.mktemp("wide"), size=2048, height=256, seed=5, density=0.3)


def part_of(out: Path) -> tuple[NucleiTable, Tally]:
    (path,) = out.glob(".wsi-nuc/parts/*/*/region-*.arrow")
    table, _, stored = read_part(made_folder(path.parent) / path.name)
    return table, Tally.from_document(stored)


def test_row_08_tile_that_crashes_its_worker(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a slide can be published without a failed tile is tested elsewhere, with a model that raises."""
    (tmp_path / "curse").mkdir()
    (tmp_path / "curse" / "sitecustomize.py").write_text(CURSE)
    given = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'curse'}:{given}".rstrip(":"))
    # A region is tried apart after two workers died of it and not after four, which halves the time.
    monkeypatch.setitem(dask.SETTINGS, "distributed.scheduler.allowed-failures", 1)
    settings = {"region_size": 4096, "keep_parts": True}
    refused = run_one(wide, tmp_path / "out", scheduler="local", workers=2, **settings)
    assert_told(refused, SLIDES, "1 tile failed", f"tile {CRASHING} at level-0", "SIGSEGV", "3 of 3 tries")
    assert published(tmp_path / "out") == []
    assert run_one(wide, tmp_path / "whole", **settings).tiles["processed"] == 2
    (left, tally), (whole, _) = part_of(tmp_path / "out"), part_of(tmp_path / "whole")
    assert [place.tile for place in tally.failed] == [CRASHING]
    assert tally.counts == TileCounts(processed=1, failed=1)
    spared = whole.select(whole.tile != CRASHING)
    assert 0 < len(left) == len(spared) < len(whole)
    np.testing.assert_array_equal(left.xy, spared.xy)
