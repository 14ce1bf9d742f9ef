"""A region in processes of its own: the same part as ever, and who is to blame where processes die."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import SlideError
from wsi_nuc.executors.apart import Died
from wsi_nuc.models.registry import model_spec
from wsi_nuc.run import apart, region
from wsi_nuc.run.job import prepare
from wsi_nuc.run.region import RegionJob, RegionReport
from wsi_nuc.store.folders import made_folder
from wsi_nuc.synth import SynthSpec, write_slide


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> RegionJob:
    """One region of three tiles."""
    folder = tmp_path_factory.mktemp("apart")
    write_slide(folder / "wide.svs", SynthSpec(size=3072, height=256, mpp=0.5, seed=5, tissue=1.0, density=0.3))
    config = RunConfig(out=folder, scheduler="serial", model="classical", tissue="none", region_size=4096)
    made = prepare(str(folder / "wide.svs"), config, model_spec("classical"), "cpu")
    (task,) = made.plan.tasks()
    assert len(task.region.tiles) == 3
    return RegionJob(made.ref, task, "classical", "cpu", made_folder(folder / "parts").ref())


def dying(returncode: int, *tiles: int) -> Callable[[partial[RegionReport]], RegionReport]:
    """In place of `call_apart`: processes that are given one of the tiles die."""

    def call(prepared: partial[RegionReport]) -> RegionReport:
        (given,) = prepared.args
        if set(tiles) & set(given.task.region.tiles):
            raise Died(returncode)
        return prepared()

    return call


def test_a_region_apart_leaves_the_same_part(job: RegionJob) -> None:
    once = region.process_region(job)
    again = apart.process(job.alone())
    assert (again.part, again.tally) == (once.part, once.tally)


@pytest.mark.parametrize("bad", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_exactly_the_tiles_that_kill_are_blamed(
    job: RegionJob, bad: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = region.process_region(job)
    monkeypatch.setattr(apart, "call_apart", dying(-signal.SIGSEGV, *bad))
    report = apart.process(replace(job.alone(), parts=made_folder(tmp_path).ref()))
    assert [place.tile for place in report.tally.failed] == list(bad)
    assert all("SIGSEGV" in place.cause for place in report.tally.failed)
    assert report.tally.counts.total == 3
    table, own, _ = region.read_part(made_folder(tmp_path) / report.part)
    wanted, wanted_own, _ = region.read_part(job.parts.opened() / whole.part)
    spared = ~region.np.isin(wanted.tile, bad)
    assert table.xy.tobytes() == wanted.select(spared).xy.tobytes()
    assert own.tolist() == wanted_own[spared].tolist()


def test_no_tile_is_blamed_where_all_are_killed_for_memory(
    job: RegionJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "call_apart", dying(-signal.SIGKILL, 0, 1, 2))
    with pytest.raises(SlideError, match="SIGKILL") as caught:
        apart.process(replace(job.alone(), parts=made_folder(tmp_path).ref()))
    assert "--workers" in caught.value.remedy
    assert not list(tmp_path.iterdir())
