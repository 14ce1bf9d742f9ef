"""The target of a synthetic slide: existing files are kept, and what cannot be written is an error."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wsi_nuc.errors import STORAGE, StorageError, UsageError
from wsi_nuc.synth import SynthSpec, truth_path, write_slide

SPEC = SynthSpec(size=300, tissue=1.0)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_slide_has_a_truth_of_its_own(tmp_path: Path) -> None:
    truths = [write_slide(tmp_path / name, SPEC).truth for name in ("b.svs", "b.ome.tif")]
    assert truths == [tmp_path / "b.svs.truth.parquet", tmp_path / "b.ome.tif.truth.parquet"]
    assert len(contents(tmp_path)) == 4


@pytest.mark.parametrize("there", ["a.svs", "a.svs.truth.parquet"])
def test_what_exists_is_replaced_on_request_only(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"exists already.*--overwrite") as caught:
        write_slide(tmp_path / "a.svs", SPEC)
    assert caught.value.subject == str(tmp_path / there)
    assert contents(tmp_path) == {there: b"mine"}
    write_slide(tmp_path / "a.svs", SPEC, overwrite=True)
    after = contents(tmp_path)
    assert set(after) == {"a.svs", "a.svs.truth.parquet"}
    assert b"mine" not in after.values()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_that_name_is_not_a_target(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a.svs").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_slide(tmp_path / "a.svs", SPEC, overwrite=overwrite)
    assert not truth_path(tmp_path / "a.svs").exists()


@pytest.mark.parametrize("size", [0, 2000, 8000])
def test_a_disk_that_fills_leaves_what_was_there_and_says_so(tmp_path: Path, size: int) -> None:
    slide = tmp_path / "a.svs"
    write_slide(slide, SynthSpec(size=64, tissue=0.0))
    before = contents(tmp_path)
    with files_up_to(size), pytest.raises(StorageError, match=r"File too large.*Make room") as caught:
        write_slide(slide, SPEC, overwrite=True)
    assert caught.value.exit_code == STORAGE
    assert caught.value.subject == str(slide)
    assert contents(tmp_path) == before


def test_a_name_that_the_disk_does_not_take_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be written .*name too long"):
        write_slide(tmp_path / ("a" * 245 + ".svs"), SPEC)
    assert not contents(tmp_path)
