"""A damaged manifest is named, never believed, and never prevents its own repair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.build import origin, publish_store
from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.store.commit import check_target
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import FORMAT, MANIFEST, ROOT, Json, digest, load, made_from, owner_of, read
from wsi_nuc.store.verify import is_result, verify

NAME = "x.svs.zarr"
OTHER_VALUES = (None, 7, "x", [], {})
changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_store(tmp_path_factory.mktemp("out"), 5, NAME).path


@pytest.fixture
def intact(store: Path) -> Iterator[Path]:
    """The store, whose manifest and root are put back after the test."""
    before = {name: (store / name).read_bytes() for name in (MANIFEST, ROOT)}
    yield store
    for name, data in before.items():
        (store / name).write_bytes(data)


def places(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every key and entry of a document, at any depth."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inner:
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


def changed(document: Json, place: tuple[Any, ...]) -> Iterator[Json]:
    """Copies of a document without the entry at `place`, and with something else there."""
    *above, last = place
    for value in ("delete", *OTHER_VALUES):
        copy = deepcopy(document)
        at = copy
        for key in above:
            at = at[key]
        if value == at[last]:
            continue
        if value == "delete":
            del at[last]
        else:
            at[last] = value
        yield copy


def assert_named_and_repairable(store: Path, files: set[str]) -> None:
    """`verify` names the files, and a run with the same settings makes the store again."""
    named = {line.partition(" ")[0] for line in verify(store)}
    assert files <= named
    assert is_result(store)
    assert owner_of(store) == origin().key["slide_sha256"]
    assert check_target(made_folder(store.parent), store.name, origin().key) is None


def test_every_key_may_be_missing_or_anything(intact: Path) -> None:
    document = read(intact)
    some_file = next(iter(document["files"]))
    for place in places(document):
        if place[0] == "files" and place[1:2] not in ((), (some_file,)):
            continue
        for other in changed(document, place):
            (intact / MANIFEST).write_text(json.dumps(other))
            assert_named_and_repairable(intact, {MANIFEST})
            with pytest.raises(StorageError) as caught:
                read(intact)
            assert caught.value.remedy == "run the slide again"


@pytest.mark.parametrize("overwrite", [False, True])
def test_run_and_overwrite_put_a_damaged_manifest_right(tmp_path: Path, overwrite: bool) -> None:
    before = publish_store(tmp_path, 5, NAME).manifest
    for damage in ({**before, "files": "gone"}, {**before, "made_from": {"config": 3}}, {**before, "run": {}}):
        (tmp_path / NAME / MANIFEST).write_text(json.dumps(damage))
        assert verify(tmp_path / NAME)
        assert publish_store(tmp_path, 5, NAME, overwrite=overwrite).new
        assert read(tmp_path / NAME) == before
        assert verify(tmp_path / NAME) == []


@settings(max_examples=150, deadline=None)
@given(changes, st.integers(0, 3))
def test_flipped_and_missing_bytes_of_the_manifest_are_named(store: Path, flips: Any, cut: int) -> None:
    whole, before = (store / MANIFEST).read_bytes(), read(store)
    data = bytearray(whole)
    for place, mask in flips:
        data[place % len(data)] ^= mask
    try:
        (store / MANIFEST).write_bytes(bytes(data[: len(data) * cut // 3] if cut < 3 else data))
        if load(store) != (before, ""):  # a blank for a blank changes nothing
            assert_named_and_repairable(store, {MANIFEST})
    finally:
        (store / MANIFEST).write_bytes(whole)


@settings(max_examples=50, deadline=None)
@given(
    st.binary(max_size=64) | st.sampled_from([b"NaN", b"[" * 10**5, b'{"files": {"a": {"size": 1e999}}}', b"\xff"])
)
def test_arbitrary_bytes_in_place_of_the_manifest_are_named(store: Path, data: bytes) -> None:
    whole = (store / MANIFEST).read_bytes()
    try:
        (store / MANIFEST).write_bytes(data)
        assert_named_and_repairable(store, {MANIFEST})
    finally:
        (store / MANIFEST).write_bytes(whole)


@settings(max_examples=60, deadline=None)
@given(changes)
def test_a_damaged_root_is_named_and_the_manifest_tells_what_it_was(store: Path, flips: Any) -> None:
    whole = (store / ROOT).read_bytes()
    data = bytearray(whole)
    for place, mask in flips:
        data[place % len(data)] ^= mask
    try:
        (store / ROOT).write_bytes(bytes(data))
        if bytes(data) != whole:
            assert_named_and_repairable(store, {ROOT})
    finally:
        (store / ROOT).write_bytes(whole)


@pytest.mark.parametrize("root", ["flipped", "unreadable", "gone"])
def test_where_neither_copy_tells_what_it_was_only_overwrite_replaces_it(intact: Path, root: str) -> None:
    document, nodes = read(intact), json.loads((intact / ROOT).read_bytes())
    document["made_from"]["slide_sha256"] = "c" * 64
    nodes["attributes"]["wsi_nuc"]["made_from"]["slide_sha256"] = "d" * 64
    (intact / MANIFEST).write_text(json.dumps(document))
    (intact / ROOT).write_text(json.dumps(nodes) if root == "flipped" else "{")
    if root == "gone":
        (intact / ROOT).unlink()
    assert verify(intact)
    assert made_from(intact) is None
    assert owner_of(intact) == ""
    with pytest.raises(UsageError, match=r"so damaged that it does not say .* --overwrite"):
        check_target(made_folder(intact.parent), NAME, origin().key)
    assert check_target(made_folder(intact.parent), NAME, origin().key, overwrite=True) is None


def test_names_of_files_never_lead_out_of_the_store(intact: Path) -> None:
    document = read(intact)
    for name in ("/etc/passwd", "../x", "a/../../x", "", "a//b", "a\0b", "\ud800"):
        other = {**document, "files": {**document["files"], name: {"sha256": "0" * 64, "size": 3}}}
        (intact / MANIFEST).write_text(json.dumps({**other, "digest": digest(other)}))
        # No file system has the last name, so its file is missing, like any other.
        assert_named_and_repairable(intact, {name if name == "\ud800" else MANIFEST})


def test_a_store_of_the_first_format_still_verifies(intact: Path) -> None:
    """Before, `run` had no checksum, and the root no hash of what the store was made from."""
    document, nodes = read(intact), json.loads((intact / ROOT).read_bytes())
    del document["run_sha256"], nodes["attributes"]["wsi_nuc"]["identity"]
    (intact / ROOT).write_text(json.dumps(nodes))
    root = {"sha256": _sha256(intact / ROOT), "size": (intact / ROOT).stat().st_size}
    document |= {"format": 1, "files": {**document["files"], ROOT: root}}
    document["digest"] = digest(document)
    (intact / MANIFEST).write_text(json.dumps(document))
    assert verify(intact) == []
    published = check_target(made_folder(intact.parent), NAME, origin().key)
    assert published is not None
    assert published.manifest == document
    (intact / MANIFEST).unlink()
    assert_named_and_repairable(intact, {MANIFEST})


def test_a_result_from_before_numbers_is_intact_but_only_overwrite_replaces_it(tmp_path: Path) -> None:
    """Its identity held the program's version, under which results have changed more than once."""
    made = origin()
    key = {name: value for name, value in made.key.items() if name != "results"} | {"version": "0.1.0"}
    path = publish_store(tmp_path, 5, NAME, replace(made, key=key)).path
    assert verify(path) == []
    with pytest.raises(UsageError, match=r"of wsi-nuc 0\.1\.0, which did not number its results.* --overwrite"):
        check_target(made_folder(tmp_path), NAME, made.key)
    assert check_target(made_folder(tmp_path), NAME, made.key, overwrite=True) is None


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_format_of_the_future_is_told(intact: Path) -> None:
    document = {**read(intact), "format": FORMAT + 1}
    (intact / MANIFEST).write_text(json.dumps({**document, "digest": digest(document)}))
    assert verify(intact) == [f"{MANIFEST} has format {FORMAT + 1}, which this version of wsi-nuc does not know"]
