"""Two slides never share a name, one slide always gets its own again, and any file name will do."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.build import origin, publish_store
from wsi_nuc.store.manifest import identity
from wsi_nuc.store.names import plain_name, store_name, store_names

A, B = "a" * 64, "b" * 64


def test_second_content_of_one_name_gets_its_hash(tmp_path: Path) -> None:
    assert store_names([("a/x.svs", A), ("b/x.svs", B)], tmp_path) == ["x.svs.zarr", f"x.svs-{B[:8]}.zarr"]
    # The claim holds for later calls in another order, and for copies of the slide elsewhere.
    assert store_names([("b/x.svs", B), ("c/x.svs", A)], tmp_path) == [f"x.svs-{B[:8]}.zarr", "x.svs.zarr"]


def test_published_result_owns_its_name_without_any_claim(tmp_path: Path) -> None:
    publish_store(tmp_path, made=origin(A))
    shutil.rmtree(tmp_path / ".wsi-nuc")
    assert store_name("x.svs", tmp_path, B) == f"x.svs-{B[:8]}.zarr"
    assert store_name("x.svs", tmp_path, A) == "x.svs.zarr"


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
    name = store_name(slide, tmp_path, A)
    assert publish_store(tmp_path, 3, name, origin(A)).path.name == name


def _claim(out_dir: str, content: str, results: object) -> None:
    results.put(store_name("x.svs", Path(out_dir), content))  # type: ignore[attr-defined]


def test_race_for_one_name_has_one_winner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    jobs = [context.Process(target=_claim, args=(str(tmp_path), f"{i:064x}"[::-1], results)) for i in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    names = [results.get() for _ in jobs]
    assert len(set(names)) == 8
    assert names.count("x.svs.zarr") == 1


def test_identity_depends_on_content_not_on_order() -> None:
    one = identity(A, B, {"x": 1, "y": {"p": 2, "q": 3}}, "1")
    assert one == identity(A, B, {"y": {"q": 3, "p": 2}, "x": 1}, "1")
    changed = [(B, B, {"x": 1}, "1"), (A, A, {"x": 1}, "1"), (A, B, {"x": 2}, "1"), (A, B, {"x": 1}, "2")]
    assert len({one, *(identity(*c) for c in changed)}) == 5
