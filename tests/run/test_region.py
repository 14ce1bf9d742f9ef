"""One region: a tile that fails is blamed alone, whatever it provokes, and parts are the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.looking import model_of, propose, segment
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import SLIDES
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.registry import load_model, model_spec
from wsi_nuc.run import region, request
from wsi_nuc.run.session import run_session
from wsi_nuc.run.success_or_failure import SlideResult
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import MaskCrops, Prompts, TileBatch

BAD_TILE = 5


@dataclass(frozen=True)
class _Broken:
    """The classical model, but for one tile: there it does as `deed` says. "nowhere": it fails at every tile."""

    model: NucleiModel
    deed: str

    def propose(self, batch: TileBatch) -> Prompts:
        if self.deed == "nowhere":
            raise ZeroDivisionError("every tile is cursed")
        if not any(tile.index == BAD_TILE for tile in batch.tiles):
            return propose(self.model, batch)
        if self.deed == "raises":
            raise ZeroDivisionError("this tile is cursed")
        prompts = propose(self.model, batch)
        return replace(prompts, score=np.full_like(prompts.score, np.nan))

    def segment(self, batch: TileBatch, prompts: Prompts, wanted: Sequence[int]) -> Sequence[MaskCrops]:
        return segment(self.model, batch, prompts, wanted)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("region") / "region.svs"
    write_slide(path, SynthSpec(size=1024, mpp=0.25, seed=2, tissue=1.0))
    return path


def _run(slide: Path, out: Path, deed: str, monkeypatch: pytest.MonkeyPatch, **options: bool) -> SlideResult:
    def spec(name: str) -> ModelSpec:
        return replace(model_spec(name), core_px=128, batch=4)

    def load(name: str, device: str) -> NucleiModel:
        model = replace(load_model(name, device), spec=spec(name))
        broken = _Broken(model, deed)
        return model if deed == "works" else model_of(model.spec, broken)

    monkeypatch.setattr(request, "model_spec", spec)
    monkeypatch.setattr(region, "load_model", load)
    region.loaded_model.cache_clear()
    config = RunConfig(out=out, scheduler="serial", model="classical", tissue="none", **options)
    (result,) = run_session(config, [str(slide)])
    region.loaded_model.cache_clear()
    return result


@pytest.mark.parametrize(("deed", "cause"), [("raises", "this tile is cursed"), ("nan", "not finite")])
def test_only_the_tile_at_fault_is_blamed(
    deed: str, cause: str, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = _run(slide, tmp_path, deed, monkeypatch)
    assert refused.exit_code == SLIDES
    assert f"tile {BAD_TILE} at level-0" in refused.error
    assert cause in refused.error
    assert not list(tmp_path.glob("*.zarr"))
    allowed = _run(slide, tmp_path, deed, monkeypatch, allow_bad_tiles=True)
    assert allowed.error == ""
    assert allowed.tiles == {"processed": 15, "background": 0, "missing": 0, "failed": 1}
    assert allowed.nuclei > 0


def test_a_slide_without_a_single_result_is_never_published_as_empty(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = _run(slide, tmp_path, "nowhere", monkeypatch, allow_bad_tiles=True)
    assert (refused.status, refused.exit_code) == ("failed", SLIDES)
    assert "no tile has a result" in refused.error
    assert "every tile is cursed" in refused.error
    assert not list(tmp_path.glob("*.zarr"))


def test_a_failed_region_is_computed_anew_when_the_cause_is_gone(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(slide, tmp_path / "a", "raises", monkeypatch).exit_code == SLIDES
    healed = _run(slide, tmp_path / "a", "works", monkeypatch)
    never_failed = _run(slide, tmp_path / "b", "works", monkeypatch)
    assert healed.error == ""
    assert healed.nuclei == never_failed.nuclei


def test_without_the_parts_of_an_earlier_run_nothing_is_left_over(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(slide, tmp_path, "works", monkeypatch)
    assert not list(tmp_path.glob(".wsi-nuc/parts/*/*/*"))
    assert not list(tmp_path.glob(".wsi-nuc/staging/*"))
