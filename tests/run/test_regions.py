"""Regions fit the slide and the workers, and a run that goes on keeps those that it began with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK
from wsi_nuc.events import Event, RegionFinished, SlideStarted
from wsi_nuc.models.registry import model_spec
from wsi_nuc.run import resources
from wsi_nuc.run.resources import REGIONS_PER_WORKER, sized
from wsi_nuc.run.session import run_session
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.tiling.plan import TilePlan, make_plan
from wsi_nuc.types import Level, SlideInfo

SPEC = model_spec("classical")


def whole_plan(edge_px: int) -> TilePlan:
    info = SlideInfo("toy", "", edge_px, edge_px, (Level(edge_px, edge_px, 1.0),), 0.5, "header")
    return make_plan(info, 0.5, SPEC, shapely.MultiPolygon([shapely.box(0, 0, edge_px, edge_px)]))


def count(plan: TilePlan) -> int:
    return sum(1 for _ in plan.regions())


@settings(max_examples=20, deadline=None)
@given(edge_px=st.integers(300, 20_000), workers=st.integers(1, 64))
def test_every_worker_has_regions_and_none_is_larger_than_memory_allows(edge_px: int, workers: int) -> None:
    whole = whole_plan(edge_px)
    plan = sized(whole, RunConfig(out=Path(), workers=workers), SPEC, "cpu")
    assert plan.tiles_per_region <= whole.tiles_per_region
    assert count(plan) >= min(plan.planned_tiles, REGIONS_PER_WORKER * workers)


def test_a_large_slide_keeps_its_large_regions() -> None:
    plan = sized(whole_plan(30_000), RunConfig(out=Path(), workers=2), SPEC, "cpu")
    assert plan.tiles_per_region == whole_plan(30_000).tiles_per_region


def test_a_region_of_a_slow_model_needs_no_ten_minutes_on_a_cpu() -> None:
    slow = replace(SPEC, cpu_tile_s=40.0)
    config, whole = RunConfig(out=Path(), workers=1), whole_plan(30_000)
    assert slow.cpu_tile_s * sized(whole, config, slow, "cpu").tiles_per_region ** 2 < 600 / 3
    assert sized(whole, config, slow, "cuda").tiles_per_region == whole.tiles_per_region


def test_a_size_that_was_asked_for_is_kept() -> None:
    whole = whole_plan(4096)
    assert sized(whole, RunConfig(out=Path(), workers=64, region_size=4096), SPEC, "cpu") is whole


def test_other_workers_go_on_with_the_regions_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = tmp_path / "a.svs"
    monkeypatch.setattr(resources, "REGIONS_PER_WORKER", 1)
    write_slide(slide, SynthSpec(size=2048, mpp=0.5, seed=4, density=0.2))
    config = RunConfig(out=tmp_path / "out", model="classical", scheduler="serial", tissue="none")

    def stop(event: Event) -> None:
        if isinstance(event, RegionFinished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_session(config, [str(slide)], stop))
    monkeypatch.setattr(resources, "workers_of", lambda config: 4)
    events: list[Event] = []
    (result,) = run_session(config, [str(slide)], events.append)
    (started,) = [event for event in events if isinstance(event, SlideStarted)]
    assert (started.regions, started.regions_resumed) == (1, 1)
    # From the start these workers would have had smaller ones, with the same result.
    fresh = config.model_copy(update={"out": tmp_path / "fresh"})
    events.clear()
    (other,) = run_session(fresh, [str(slide)], events.append)
    (started,) = [event for event in events if isinstance(event, SlideStarted)]
    assert started.regions == 4
    assert result.exit_code == other.exit_code == OK
    assert digest(config) == digest(fresh)


def digest(config: RunConfig) -> Any:
    return json.loads((config.out / "a.svs.zarr" / "manifest.json").read_text())["digest"]
