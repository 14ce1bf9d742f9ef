"""Two slides never share a name, a slide always gets its own name again, and any file name is accepted."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.build import origin, publish_store
from tests.store.faults import no_flock
from wsi_nuc.errors import StorageError
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import identity
from wsi_nuc.store.names import claim_name, plain_name

A, B, C = (digit * 64 for digit in "abc")


PLAIN, OF_B = "x.svs.zarr", f"x.svs-{B[:8]}.zarr"


def name_of(slide: str, out_dir: Path, content: str) -> str:
    with claim_name(slide, made_folder(out_dir), content) as claim:
        return claim.name


def test_second_content_of_one_name_gets_its_hash(tmp_path: Path) -> None:
    with (
        claim_name("a/x.svs", made_folder(tmp_path), A) as first,
        claim_name("b/x.svs", made_folder(tmp_path), B) as second,
    ):
        assert (first.name, second.name) == (PLAIN, OF_B)
        # A copy of the slide elsewhere shares its claim, and does not end it.
        assert name_of("c/x.svs", tmp_path, A) == PLAIN
        assert name_of("b/x.svs", tmp_path, B) == OF_B
        assert name_of("x.svs", tmp_path, C) == f"x.svs-{C[:8]}.zarr"


def test_a_claim_without_a_result_ends_with_its_holder(tmp_path: Path) -> None:
    # A damaged slide fails and is restored: its other content gets the plain name.
    assert name_of("x.svs", tmp_path, A) == PLAIN
    assert name_of("x.svs", tmp_path, B) == PLAIN
    assert list((tmp_path / ".wsi-nuc" / "names").iterdir()) == []


def test_a_claim_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        claim_name("x.svs", made_folder(tmp_path), A)
        os.kill(os.getpid(), 9)
    assert os.waitpid(child, 0)[1] == 9
    assert name_of("x.svs", tmp_path, B) == PLAIN


def test_a_result_keeps_its_name_when_the_plain_one_is_free_again(tmp_path: Path) -> None:
    with (
        claim_name("a/x.svs", made_folder(tmp_path), A),
        claim_name("b/x.svs", made_folder(tmp_path), B) as second,
    ):
        publish_store(tmp_path, 3, second.name, origin(B))
    assert name_of("b/x.svs", tmp_path, B) == OF_B
    assert name_of("a/x.svs", tmp_path, A) == PLAIN


def test_published_result_owns_its_name_without_any_claim(tmp_path: Path) -> None:
    publish_store(tmp_path, made=origin(A))
    shutil.rmtree(tmp_path / ".wsi-nuc")
    assert name_of("x.svs", tmp_path, B) == OF_B
    assert name_of("x.svs", tmp_path, A) == PLAIN


def test_without_locks_the_first_claim_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_flock)
    assert name_of("x.svs", tmp_path, A) == PLAIN
    assert name_of("x.svs", tmp_path, B) == OF_B
    assert name_of("x.svs", tmp_path, A) == PLAIN


def test_full_disk_is_told_and_leaves_the_name_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="bytes needed"):
            claim_name("x.svs", made_folder(tmp_path), A)
    assert name_of("x.svs", tmp_path, B) == PLAIN


def test_giving_a_name_back_does_not_bring_back_a_removed_folder(tmp_path: Path) -> None:
    out_dir = tmp_path / "out"
    claim = claim_name("x.svs", made_folder(out_dir), A)
    shutil.rmtree(out_dir)
    claim.close()
    claim.close()
    assert not out_dir.exists()


@pytest.mark.parametrize(
    ("slide", "name"),
    [
        ("/s/a b.svs", "a b.svs"),
        ("/s/🔬 größe.svs", "🔬 größe.svs"),
        ("/s/two\nlines.svs", "two%0Alines.svs"),
        ("/s/bell\x07\u202e.svs", "bell%07%E2%80%AE.svs"),
        ("https://h/p/x%20y.svs?token=secret#f", "x y.svs"),
        ("s3://bucket/slide.zarr/", "slide.zarr"),
        ("/s/not-utf8\udcff.svs", "not-utf8%ED%B3%BF.svs"),
        ("", "slide"),
    ],
)
def test_names_are_readable_and_printable(slide: str, name: str) -> None:
    assert plain_name(slide) == name


@given(st.text())
def test_any_name_makes_one_safe_path_component(text: str) -> None:
    name = plain_name(text)
    assert name
    assert "/" not in name
    assert name.replace("\u200d", "").isprintable()
    assert len(f"{name}-01234567.zarr.lock".encode()) < 255


@pytest.mark.parametrize("slide", ["a b.svs", "🔬.svs", "two\nlines.svs"])
def test_odd_names_can_be_published(tmp_path: Path, slide: str) -> None:
    name = name_of(slide, tmp_path, A)
    assert publish_store(tmp_path, 3, name, origin(A)).path.name == name


def _claim(out_dir: str, content: str, results: object, all_claimed: object) -> None:
    with claim_name("x.svs", made_folder(Path(out_dir)), content) as claim:
        results.put(claim.name)  # type: ignore[attr-defined]
        all_claimed.wait(30)  # type: ignore[attr-defined]


def test_race_for_one_name_has_one_winner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results, all_claimed = context.SimpleQueue(), context.Barrier(8)
    contents = [f"{i:064x}"[::-1] for i in range(8)]
    jobs = [context.Process(target=_claim, args=(str(tmp_path), c, results, all_claimed)) for c in contents]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0] * 8
    names = [results.get() for _ in jobs]
    assert len(set(names)) == 8
    assert names.count("x.svs.zarr") == 1


def _claim_often(out_dir: str, content: str, counted: object) -> None:
    """A process that holds the plain name must be the only one."""
    for _ in range(40):
        with claim_name("x.svs", made_folder(Path(out_dir)), content) as claim:
            if claim.name == PLAIN:
                mark = Path(out_dir, "holder")
                mark.mkdir()
                mark.rmdir()
                with counted:  # type: ignore[attr-defined]
                    counted.value += 1  # type: ignore[attr-defined]


def test_claims_that_come_and_go_never_overlap(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    counted = context.Value("i", 0)
    jobs = [context.Process(target=_claim_often, args=(str(tmp_path), c * 64, counted)) for c in "abcd"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0] * 4
    assert counted.value


def test_identity_depends_on_content_not_on_order() -> None:
    first, second = {"pipeline": 1}, {"pipeline": 2}
    original = identity(A, B, {"x": 1, "y": {"p": 2, "q": 3}}, first)
    assert original == identity(A, B, {"y": {"q": 3, "p": 2}, "x": 1}, first)
    changed = [(B, B, {"x": 1}, first), (A, A, {"x": 1}, first), (A, B, {"x": 2}, first), (A, B, {"x": 1}, second)]
    assert len({original, *(identity(*arguments) for arguments in changed)}) == 5
