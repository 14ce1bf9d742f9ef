"""A store as one file: the same members, published and converted in one step, and refused if it is not a store."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from tests.store.build import CLASSES, origin, publish_store
from tests.store.faults import before_call, failing, recording
from tests.store.hostile_zips import HOSTILE
from wsi_nuc import safezip
from wsi_nuc.cli import app
from wsi_nuc.errors import OK, STORAGE, USAGE, StorageError, UsageError
from wsi_nuc.safezarr import open_array
from wsi_nuc.safezip import contents
from wsi_nuc.store import durable, layout
from wsi_nuc.store.commit import check_target, clean_up
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import MANIFEST, hash_file, owner_of, read, walk
from wsi_nuc.store.names import claim_name
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.store.packing import convert
from wsi_nuc.store.reading import NucleiFile, class_names
from wsi_nuc.store.tables import probability_name
from wsi_nuc.store.verify import is_result, verify

FOLDER, PACKED = "x.svs.zarr", "x.svs.zarr.zip"


def visible(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.name != ".wsi-nuc")


def private_files(out: Path) -> list[Path]:
    """All private files but the lock that stays for all slides together."""
    files = [path for path in (out / ".wsi-nuc").rglob("*") if not path.is_dir()]
    return [path for path in files if path.name != "names.lock"]


def digests(store: Path) -> dict[str, str]:
    inside = contents(store)
    return {name: hash_file(inside / name) for name in [*walk(inside), MANIFEST]}


def test_packed_and_unpacked_again_every_member_is_the_same(tmp_path: Path) -> None:
    store = publish_store(tmp_path).path
    before = digests(store)
    assert convert(store, packed=True) == tmp_path / PACKED
    assert visible(tmp_path) == [PACKED]
    assert digests(tmp_path / PACKED) == before
    assert convert(tmp_path / PACKED, packed=False) == store
    assert visible(tmp_path) == [FOLDER]
    assert digests(store) == before
    assert private_files(tmp_path) == []


def test_a_packed_run_and_a_packed_folder_are_the_same_bytes(tmp_path: Path) -> None:
    published = publish_store(tmp_path / "a", name=PACKED)
    assert published.path == tmp_path / "a" / PACKED
    assert visible(tmp_path / "a") == [PACKED]
    assert private_files(tmp_path / "a") == []
    convert(publish_store(tmp_path / "b").path, packed=True)
    assert (tmp_path / "a" / PACKED).read_bytes() == (tmp_path / "b" / PACKED).read_bytes()
    with zipfile.ZipFile(published.path) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert names == sorted(names)
    assert {"zarr.json", MANIFEST} < set(names)


def test_a_store_of_the_format_before_is_read_packed_and_unpacked(tmp_path: Path) -> None:
    store = tmp_path / FOLDER
    with zipfile.ZipFile(Path(__file__).with_name("format-2.zip")) as archive:
        archive.extractall(store)
    before = digests(store)
    assert read(store)["format"] == 2
    assert "tables/classes/obs/count/c/0" in before
    packed = convert(store, packed=True)
    for place in (packed, convert(packed, packed=False, keep=True)):
        assert verify(place) == []
        assert digests(place) == before
        assert class_names(place) == CLASSES
        with NucleiReader(place, ["class", *map(probability_name, CLASSES)]) as reader:
            assert len(reader.nuclei(0)) == read(place)["counts"]["nuclei"] == 20
    assert check_target(made_folder(tmp_path), FOLDER, origin().key) is not None


def test_keep_leaves_both_and_the_same_again_is_verified(tmp_path: Path) -> None:
    store = publish_store(tmp_path).path
    for _ in range(2):
        assert convert(store, packed=True, keep=True) == tmp_path / PACKED
        assert visible(tmp_path) == [FOLDER, PACKED]
    assert convert(store, packed=True) == tmp_path / PACKED
    assert visible(tmp_path) == [PACKED]
    assert convert(store, packed=True) == tmp_path / PACKED


def test_another_store_in_the_way_is_refused(tmp_path: Path) -> None:
    other = publish_store(tmp_path / "other", 20, name=PACKED, made=origin(b=1)).path
    store = publish_store(tmp_path).path
    shutil.copy(other, tmp_path / PACKED)
    with pytest.raises(StorageError, match="is not the same"):
        convert(store, packed=True)
    assert verify(store) == []
    assert read(tmp_path / PACKED)["counts"]["nuclei"] == 20


def test_damage_stops_a_conversion(tmp_path: Path) -> None:
    store = publish_store(tmp_path).path
    (store / "tables/nuclei_table/X/c.0.0").unlink()
    with pytest.raises(StorageError, match=r"X/c\.0\.0 is missing"):
        convert(store, packed=True)
    assert visible(tmp_path) == [FOLDER]
    with pytest.raises(UsageError, match="not a result"):
        convert(tmp_path / "nothing.zarr", packed=True)


def test_zarr_and_pyarrow_read_the_members_where_they_lie(tmp_path: Path) -> None:
    folder = publish_store(tmp_path, 150).path
    packed = convert(folder, packed=True, keep=True)
    assert class_names(packed) == CLASSES
    assert owner_of(packed) == owner_of(folder) == "a" * 64
    with NucleiFile(packed) as file, NucleiFile(folder) as plain:
        assert np.array_equal(file.rings(0).xy, plain.rings(0).xy)
        assert np.array_equal(file.points(0).area_um2, plain.points(0).area_um2)
    columns = ("score", "class", *map(probability_name, CLASSES))
    with NucleiReader(packed, columns) as reader, NucleiReader(folder, columns) as plain_reader:
        for name in columns:
            assert np.array_equal(reader.nuclei(0).columns[name], plain_reader.nuclei(0).columns[name])
    array = open_array(contents(packed) / layout.NUCLEI_TABLE / "X")
    assert np.array_equal(array[40:60], open_array(folder / layout.NUCLEI_TABLE / "X")[40:60])
    # Other readers of Zarr see the same.
    store = zarr.storage.ZipStore(packed, mode="r")
    assert np.array_equal(zarr.open_group(store, mode="r")[layout.NUCLEI_TABLE]["X"][:], array[:])


def test_a_result_counts_in_either_form(tmp_path: Path) -> None:
    out, key = made_folder(tmp_path), origin().key
    for existing, wanted in ((FOLDER, PACKED), (PACKED, FOLDER)):
        first = publish_store(tmp_path, name=existing)
        again = publish_store(tmp_path, name=wanted)
        assert not again.new
        assert again.path == first.path
        published = check_target(out, wanted, key)
        assert published is not None
        assert published.path == first.path
        with pytest.raises(UsageError, match="other settings"):
            check_target(out, wanted, origin(b=1).key)
        with claim_name("x.svs", out, "a" * 64) as own, claim_name("x.svs", out, "c" * 64) as other:
            assert own.name == FOLDER
            assert other.name != FOLDER
        replaced = publish_store(tmp_path, 20, name=wanted, made=origin(b=1), overwrite=True)
        assert replaced.new
        assert visible(tmp_path) == [wanted]
        assert read(tmp_path / wanted)["counts"]["nuclei"] == 20
        assert private_files(tmp_path) == []
        shutil.rmtree(tmp_path / wanted) if wanted == FOLDER else (tmp_path / wanted).unlink()


@pytest.mark.parametrize("where", ["shapes/nuclei/shapes.parquet", "tables/nuclei_table/X/c.0.0", MANIFEST])
def test_flipped_bytes_are_named_and_the_same_run_restores_them(tmp_path: Path, where: str) -> None:
    path = publish_store(tmp_path, name=PACKED).path
    before = path.read_bytes()
    start, size = contents(path).packed.members[where]  # type: ignore[union-attr]
    data = bytearray(before)
    data[start + size // 2] ^= 1
    path.write_bytes(data)
    assert [line.split()[0] for line in verify(path)] == [where]
    assert is_result(path)
    assert publish_store(tmp_path, name=PACKED).new
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused_and_named(tmp_path: Path, kind: str) -> None:
    path = publish_store(tmp_path / "out", name=PACKED).path
    HOSTILE[kind](path)
    with pytest.raises(StorageError) as caught:
        contents(path)
    assert str(path) in str(caught.value)
    assert verify(path) == [f"{PACKED} {caught.value.cause}"]
    runner = CliRunner()
    for command in (["verify", str(path)], ["unpack", str(path)]):
        done = runner.invoke(app, command)
        assert done.exit_code == STORAGE
        assert PACKED in done.output
    assert visible(tmp_path / "out") == [PACKED]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    with pytest.raises(StorageError):
        NucleiFile(path)


def test_a_directory_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = publish_store(tmp_path, name=PACKED).path
    monkeypatch.setattr(safezip, "MAX_DIRECTORY_BYTES", 1000)
    with pytest.raises(StorageError, match="directory of more than"):
        contents(path)


def test_a_zip_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / PACKED
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", "{}" * 100)
    before = path.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(StorageError, match="not a result of wsi-nuc"):
            publish_store(tmp_path, name=PACKED, overwrite=overwrite)
    assert path.read_bytes() == before


def test_large_archives_are_read_by_their_larger_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Python writes this for archives beyond 2 GiB; here it is written for any size.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    path = publish_store(tmp_path, name=PACKED).path
    assert b"PK\x06\x06" in path.read_bytes()
    assert verify(path) == []


def test_pack_and_unpack_on_the_command_line(tmp_path: Path) -> None:
    store, runner = publish_store(tmp_path).path, CliRunner()
    for command, name in (("pack", PACKED), ("unpack", FOLDER)):
        done = runner.invoke(app, [command, str(tmp_path / visible(tmp_path)[0])])
        assert (done.exit_code, done.output) == (OK, f"{tmp_path / name}: verified\n")
        assert runner.invoke(app, ["verify", str(tmp_path / name)]).exit_code == OK
    (tmp_path / "notes.zarr.zip").write_text("text")
    done = runner.invoke(app, ["pack", str(store), str(tmp_path / "notes.zarr.zip"), str(tmp_path / "none.zarr")])
    assert done.exit_code == STORAGE
    assert visible(tmp_path) == ["notes.zarr.zip", PACKED]
    assert runner.invoke(app, ["pack", str(tmp_path / "none.zarr")]).exit_code == USAGE


@pytest.mark.parametrize("packed", [True, False])
def test_whenever_a_conversion_stops_the_store_is_there(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # Nobody sees it here, and it takes minutes.

    def prepared(name: str) -> Path:
        return publish_store(tmp_path / name, 20, name=FOLDER if packed else PACKED).path

    def intact(out: Path) -> list[str]:
        assert all(verify(out / name) == [] for name in visible(out))
        return visible(out)

    store, seen = prepared("whole"), []
    # A kill leaves the disk as it is. So a look before each call shows what a kill would leave there.
    with before_call(lambda operation, path: seen.append(intact(store.parent))):
        convert(store, packed)
    assert [] not in seen
    calls = len(seen)
    for number in sorted({*range(0, calls, 9), *range(calls - 20, calls)}):
        broken = prepared(str(number))
        with failing(number, errno.EIO), pytest.raises(StorageError):
            convert(broken, packed)
        clean_up(made_folder(broken.parent))
        assert intact(broken.parent)
        convert(broken, packed)
        assert intact(broken.parent) == [PACKED if packed else FOLDER]
        assert private_files(broken.parent) == []
        shutil.rmtree(broken.parent)


def test_no_other_file_is_replaced_that_appears_at_the_last_moment(tmp_path: Path) -> None:
    def appear(operation: str, path: Path) -> None:
        if operation == "rename" and path.name == PACKED:
            path.write_text("mine")

    with before_call(appear), pytest.raises(StorageError):
        publish_store(tmp_path, name=PACKED)
    assert (tmp_path / PACKED).read_text() == "mine"


def test_a_full_disk_is_told_while_packing(tmp_path: Path) -> None:
    with recording() as calls:
        publish_store(tmp_path / "count")
    writes = calls.count("write")
    with failing(writes + 3, errno.ENOSPC, only="write"), pytest.raises(StorageError, match="bytes needed"):
        publish_store(tmp_path / "out", name=PACKED)
    assert visible(tmp_path / "out") == []
    assert durable.before is None
