"""Features inside a run give the same bytes as adding them later, for any workers, and no later run loses them."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import start, wsi_nuc
from wsi_nuc.config import RunConfig
from wsi_nuc.features.job import has_features
from wsi_nuc.features.registry import features_of
from wsi_nuc.features.running import run_slides
from wsi_nuc.store.manifest import read
from wsi_nuc.store.tables import probability_name
from wsi_nuc.store.verify import verify
from wsi_nuc.synth import SynthSpec, write_slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "x.svs"
    write_slide(path, SynthSpec(size=1536, mpp=0.25, seed=3))
    return path


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes several tasks although the slide is small."""
    monkeypatch.setattr("wsi_nuc.store.nuclei_columns.ROW_GROUP_ROWS", 200)


def run(slide: Path, out: Path, **options: Any) -> Any:
    (result,) = run_slides(RunConfig(out=out, scheduler="serial", model="classical", **options), [str(slide)])
    assert not result.error
    return result


@pytest.fixture
def whole(slide: Path, tmp_path: Path) -> Path:
    return Path(run(slide, tmp_path / "whole", features=True).store)


def test_the_table_has_them_and_the_manifest_says_so(whole: Path) -> None:
    import anndata

    table = anndata.read_zarr(whole / "tables/nuclei_table")
    classes = list(table.obs["class"].cat.categories)
    assert list(table.var_names) == [
        *map(probability_name, classes),
        *(feature.name for feature in features_of(classes)),
    ]
    assert table.n_obs > 400
    assert has_features(read(whole)["made_from"])
    assert verify(whole) == []
    assert not list(whole.rglob("*.npy"))


def test_regions_and_the_order_of_doing_do_not_show(slide: Path, whole: Path, tmp_path: Path) -> None:
    small = run(slide, tmp_path / "small", features=True, region_size=256)
    later = Path(run(slide, tmp_path / "later").store)
    plain = read(later)["digest"]
    added = run(slide, tmp_path / "later", features=True)
    digests = {read(Path(store))["digest"] for store in (whole, small.store, added.store)}
    assert digests == {read(whole)["digest"]} != {plain}
    assert (added.status, added.store) == ("published", str(later))


def test_a_packed_result_counts_for_every_run_and_gets_features(slide: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    first = run(slide, out, pack=True)
    assert (first.status, first.store) == ("published", str(out / "x.svs.zarr.zip"))
    for pack in (True, False):
        again = run(slide, out, pack=pack)
        assert (again.status, again.store) == ("verified", first.store)
    with_features = run(slide, out, features=True)
    assert (with_features.status, with_features.store) == ("published", first.store)
    assert run(slide, out, features=True).status == "verified"
    assert read(Path(first.store))["digest"] == read(whole)["digest"]
    at_once = run(slide, tmp_path / "at once", features=True, pack=True)
    assert read(Path(at_once.store))["files"] == read(whole)["files"]
    assert sorted(path.name for path in out.iterdir()) == [
        ".wsi-nuc",
        "x.svs.classes.csv",
        "x.svs.zarr.zip",
    ]


def test_a_run_without_features_keeps_those_that_are_there(slide: Path, whole: Path) -> None:
    digest = read(whole)["digest"]
    assert run(slide, whole.parent).status == "verified"
    (whole / "tables/nuclei_table/var/family/c.0").unlink()
    assert run(slide, whole.parent).status == "published"
    assert read(whole)["digest"] == digest


def test_a_damaged_result_without_features_is_made_anew_with_them(
    slide: Path, whole: Path, tmp_path: Path
) -> None:
    plain = Path(run(slide, tmp_path / "plain").store)
    (plain / "shapes/nuclei/shapes.parquet").unlink()
    assert run(slide, tmp_path / "plain", features=True).status == "published"
    assert read(plain)["digest"] == read(whole)["digest"]


def test_a_blank_slide_has_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    import anndata

    path = tmp_path / "blank.svs"
    write_slide(path, SynthSpec(size=512, mpp=0.25, blank=True))
    result = run(path, tmp_path / "out", features=True)
    assert result.status == "empty"
    assert anndata.read_zarr(Path(result.store) / "tables/nuclei_table").shape[0] == 0


@pytest.mark.slow
def test_two_workers_write_what_one_does(slide: Path, whole: Path, tmp_path: Path) -> None:
    result = next(
        iter(
            run_slides(RunConfig(out=tmp_path / "two", workers=2, model="classical", features=True), [str(slide)])
        )
    )
    assert not result.error
    assert read(Path(result.store))["digest"] == read(whole)["digest"]


def test_the_command_finds_the_slide_and_says_what_it_did(slide: Path, whole: Path) -> None:
    store = Path(run(slide, slide.parent).store)
    first, again = (wsi_nuc("features", store, "--workers", 2) for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert "nuclei measured" in first.stdout
    assert "already" in again.stdout
    assert read(store)["digest"] == read(whole)["digest"]


def test_wrong_calls_are_named(tmp_path: Path, whole: Path) -> None:
    nothing, many = wsi_nuc("features"), wsi_nuc("features", whole, whole, "--slide", "x.svs")
    assert (nothing.returncode, many.returncode) == (2, 2)
    assert "wsi-nuc columns" in nothing.stderr
    lost = wsi_nuc("features", whole)
    assert lost.returncode == 2
    assert "pass it with --slide" in lost.stderr.lower()
    none = wsi_nuc("features", tmp_path / "none.zarr")
    assert none.returncode == 5
    assert "none.zarr" in none.stderr


@pytest.mark.slow
def test_stopped_by_a_signal_the_store_is_as_it_was(slide: Path, tmp_path: Path) -> None:
    store = Path(run(slide, tmp_path).store)
    digest, staging = read(store)["digest"], tmp_path / ".wsi-nuc" / "staging"
    process = start("features", store, "--slide", slide, "--workers", 1)
    while not list(staging.glob("*.zarr/.features/*.npy")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, read(store)["digest"], verify(store)) == (75, digest, [])
    assert "stopped by SIGTERM. Finished stores are kept" in errors
    assert wsi_nuc("features", store, "--slide", slide, "--workers", 1).returncode == 0
    assert has_features(read(store)["made_from"])
    assert list(staging.iterdir()) == []
