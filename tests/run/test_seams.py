"""Seams must not show: cutting the slide into many small tiles finds what one large tile finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from wsi_nuc.config import RunConfig
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.run import region, request
from wsi_nuc.run.session import run_session
from wsi_nuc.synth import SynthSpec, write_slide

SIZE = 2048


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seams") / "seams.svs"
    write_slide(path, SynthSpec(size=SIZE, mpp=0.25, seed=11))
    return path


@pytest.fixture
def with_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run with another size of tiles than the model's own."""

    def use(core_px: int) -> None:
        def spec(name: str) -> ModelSpec:
            return replace(model_spec(name), core_px=core_px)

        def load(name: str, device: str) -> NucleiModel:
            return replace(load_model(name, device), spec=spec(name))

        region.loaded_model.cache_clear()
        monkeypatch.setattr(request, "model_spec", spec)
        monkeypatch.setattr(region, "load_model", load)

    yield use
    region.loaded_model.cache_clear()


def _nuclei(slide: Path, out: Path) -> Any:
    (result,) = run_session(RunConfig(out=out, scheduler="serial", model="classical"), [str(slide)])
    assert result.error == ""
    return geopandas.read_parquet(Path(result.store) / "shapes/nuclei/shapes.parquet")


def test_small_tiles_find_what_one_large_tile_finds(slide: Path, tmp_path: Path, with_core: Any) -> None:
    with_core(SIZE // 2)
    whole = _nuclei(slide, tmp_path / "whole")
    with_core(160)
    cut = _nuclei(slide, tmp_path / "cut")
    assert not whole.seam.any()
    assert cut.seam.mean() > 0.1, "small tiles have many seams"
    one = shapely.normalize(whole.geometry.to_numpy())
    two = shapely.normalize(cut.geometry.to_numpy())
    same = {shapely.to_wkb(polygon) for polygon in one} & {shapely.to_wkb(polygon) for polygon in two}
    assert len(same) >= 0.995 * max(len(one), len(two))
    at_seams = {shapely.to_wkb(polygon) for polygon in two[cut.seam.to_numpy()]}
    assert len(at_seams & same) >= 0.99 * len(at_seams), "nuclei at seams are as whole as the others"


def test_no_nucleus_is_there_twice(slide: Path, tmp_path: Path, with_core: Any) -> None:
    with_core(160)
    polygons = _nuclei(slide, tmp_path).geometry.to_numpy()
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    one, other = one[one < other], other[one < other]
    overlap = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    smaller = np.minimum(shapely.area(polygons[one]), shapely.area(polygons[other]))
    assert not (overlap > 0.8 * smaller).any()
