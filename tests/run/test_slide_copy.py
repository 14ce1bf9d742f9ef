"""Slides on the node's own disk: the same result, nothing left, and every fault names the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import SlideError, StorageError, UsageError
from wsi_nuc.run import slide_copy
from wsi_nuc.run.session import run_session
from wsi_nuc.run.slide_copy import StagedSlide, remove_abandoned
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.store import durable
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.folders import made_folder
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import SlideRef


def nothing() -> None:
    """A source that did not change."""


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "a slide.svs"
    path.write_bytes(os.urandom(100_000))
    return path


def staged(slide: Path, stage: Path) -> StagedSlide:
    ref = SlideRef(str(slide))
    return StagedSlide(ref, made_folder(stage), content_sha256(ref), nothing)


def test_the_copy_is_the_slide_and_goes_with_it(slide: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    with staged(slide, stage) as copy:
        assert Path(copy.ref.path).read_bytes() == slide.read_bytes()
        assert stage in Path(copy.ref.path).parents
    assert files(stage) == []
    assert slide.is_file()


@pytest.mark.parametrize("folder", [True, False], ids=["a folder", "a file and its folder"])
def test_slides_of_many_files_are_copied_whole(folder: bool, tmp_path: Path) -> None:
    series = tmp_path / "case"
    (series / "data").mkdir(parents=True)
    (series / ("zarr.json" if folder else "Slidedat.ini")).write_text("{}")
    (series / "data" / "1.dat").write_bytes(b"1" * 1000)
    slide = series
    if not folder:
        slide = tmp_path / "case.mrxs"
        slide.write_bytes(b"jpeg")
    with staged(slide, tmp_path / "stage") as copy:
        assert content_sha256(copy.ref) == content_sha256(SlideRef(str(slide)))
    assert files(tmp_path / "stage") == []


def test_an_address_is_left_where_it_is(tmp_path: Path) -> None:
    ref = SlideRef("https://example.org/slide.svs")
    with StagedSlide(ref, made_folder(tmp_path), "0" * 64, nothing) as copy:
        assert copy.ref == ref


def test_a_copy_that_differs_is_refused_and_removed(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="differs"):
        StagedSlide(SlideRef(str(slide)), made_folder(tmp_path / "stage"), "0" * 64, nothing)
    assert files(tmp_path / "stage") == []


def test_a_slide_that_changed_meanwhile_is_to_blame_itself(slide: Path, tmp_path: Path) -> None:
    def changed() -> None:
        raise SlideError(slide, "the slide changed during the run")

    with pytest.raises(SlideError, match="changed"):
        StagedSlide(SlideRef(str(slide)), made_folder(tmp_path / "stage"), "0" * 64, changed)


def test_a_folder_without_room_is_named_before_anything_is_copied(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_copy, "free_bytes", lambda path: 99_999)
    with pytest.raises(StorageError, match=r"100,000 bytes are needed .* 99,999 are free") as told:
        staged(slide, tmp_path / "stage")
    assert str(tmp_path / "stage") in str(told.value)


def test_a_disk_that_fills_up_is_named(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(operation: str, path: Path) -> None:
        if operation == "write":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "before", full)
    with pytest.raises(StorageError) as told:
        staged(slide, tmp_path / "stage")
    assert told.value.subject == str(tmp_path / "stage")
    assert "--stage" in told.value.remedy
    assert files(tmp_path / "stage") == []


def test_copies_of_the_dead_go_and_those_of_the_living_stay(slide: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    with staged(slide, stage) as alive:
        dead = Path(alive.ref.path).parent.with_name("0" * 32)
        dead.mkdir()
        (dead / "slide.svs").write_bytes(b"x")
        dead.with_suffix(".lock").touch()
        remove_abandoned(made_folder(stage))
        assert not dead.exists()
        assert Path(alive.ref.path).is_file()


def test_a_staged_run_reads_the_copy_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = tmp_path / "small.svs"
    write_slide(slide, SynthSpec(size=768, mpp=0.25, seed=5))
    used = []
    original = slide_copy.StagedSlide.__init__

    def noted(self: StagedSlide, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        used.append(self.ref.path)

    monkeypatch.setattr(slide_copy.StagedSlide, "__init__", noted)
    digests = []
    for stage in (None, tmp_path / "stage"):
        config = RunConfig(out=tmp_path / f"out-{stage is None}", scheduler="serial", stage=stage)
        (result,) = run_session(config, [str(slide)])
        assert result.exit_code == 0, result.error
        digests.append(manifests.read(Path(result.store))["digest"])
    assert digests[0] == digests[1]
    assert len(used) == 1
    assert str(tmp_path / "stage") in used[0]
    assert files(tmp_path / "stage") == []


def test_workers_elsewhere_do_not_see_this_disk(tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path, scheduler="tcp://127.0.0.1:1", stage=tmp_path / "stage")
    with pytest.raises(UsageError, match="--stage"):
        list(run_session(config, ["a.svs"]))
