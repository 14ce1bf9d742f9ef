"""Publishing is all or nothing, whatever fails, and a result is never replaced by accident."""

from __future__ import annotations

import errno
import gc
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.store.build import CLASSES, core_boxes_l0, nuclei, origin, publish_store, write_store
from tests.store.faults import before_call, failing, recording
from wsi_nuc.errors import USAGE, StorageError, UsageError
from wsi_nuc.store import commit, durable
from wsi_nuc.store.commit import Staging, check_target, clean_up, differences, publish
from wsi_nuc.store.folders import made_folder, output_folder
from wsi_nuc.store.locks import Held, try_lock
from wsi_nuc.store.manifest import Accounting, build, digest, read
from wsi_nuc.store.nuclei_columns import ROW_GROUP_ROWS, NucleiWriter
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import slide_lock
from wsi_nuc.store.verify import is_result, problems_of, verify
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import TileCounts

NAME = "x.svs.zarr"


def visible(out_dir: Path) -> list[str]:
    return sorted(path.name for path in out_dir.iterdir() if path.name != ".wsi-nuc")


def staged(out_dir: Path) -> list[Path]:
    return list((out_dir / ".wsi-nuc" / "staging").glob("*"))


def calls_of_one_commit(out_dir: Path) -> list[str]:
    with recording() as calls:
        publish_store(out_dir)
    return calls


def test_published_store_is_intact_and_leaves_nothing_behind(tmp_path: Path) -> None:
    result = publish_store(tmp_path)
    assert result.new
    assert verify(result.path) == []
    assert visible(tmp_path) == [NAME]
    assert staged(tmp_path) == []


def test_manifest_accounts_and_repeats(tmp_path: Path) -> None:
    first, second = (publish_store(tmp_path / name).manifest for name in ("a", "b"))
    assert first == second
    assert first["tiles"]["total"] == 256
    assert first["counts"]["nuclei"] == 50
    assert digest({**first, "run": {"seconds": 99.0}}) == first["digest"]
    assert digest({**first, "repairs": 1}) != first["digest"]


def test_full_disk_is_named_with_bytes_needed_and_free(tmp_path: Path) -> None:
    with (
        failing(2, errno.ENOSPC, only="write"),
        pytest.raises(StorageError, match=r"[\d,]+ bytes needed, [\d,]+ free"),
    ):
        publish_store(tmp_path)


def test_the_same_result_again_is_verified_not_replaced(tmp_path: Path) -> None:
    first = publish_store(tmp_path)
    inode = first.path.stat().st_ino
    again = publish_store(tmp_path, overwrite=True)
    assert not again.new
    assert again.path.stat().st_ino == inode
    published = check_target(made_folder(tmp_path), NAME, origin().key)
    assert published is not None
    assert published.manifest == first.manifest


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    before = publish_store(tmp_path).manifest
    other = origin(region_px=2048)
    for attempt in (
        lambda: check_target(made_folder(tmp_path), NAME, other.key),
        lambda: publish_store(tmp_path, made=other),
    ):
        with pytest.raises(UsageError, match=r"config\.region_px: None -> 2048") as caught:
            attempt()
        assert caught.value.exit_code == USAGE
    assert verify(tmp_path / NAME) == []
    assert read(tmp_path / NAME) == before


@pytest.mark.parametrize("atomic", [True, False])
def test_overwrite_replaces_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool) -> None:
    if not atomic:
        monkeypatch.setattr(durable, "exchange", lambda source, target: False)
    publish_store(tmp_path)
    other = origin(region_px=2048)
    assert check_target(made_folder(tmp_path), NAME, other.key, overwrite=True) is None
    result = publish_store(tmp_path, 20, made=other, overwrite=True)
    assert result.new
    assert verify(result.path) == []
    assert read(result.path)["counts"]["nuclei"] == 20
    assert visible(tmp_path) == [NAME]
    assert staged(tmp_path) == []


def test_overwrite_in_two_steps_recovers_from_a_stop_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "exchange", lambda source, target: False)
    before = publish_store(tmp_path).manifest
    other = origin(region_px=2048)
    renames = [c for c in calls_of_one_commit(tmp_path / "count") if c == "rename"]
    # The manifest's rename, the old result's rename to the backup, then the one that fails.
    with failing(len(renames), errno.EIO, only="rename"), pytest.raises(StorageError):
        publish_store(tmp_path, 20, made=other, overwrite=True)
    assert visible(tmp_path) == ["count"]
    clean_up(made_folder(tmp_path))
    assert read(tmp_path / NAME) == before
    assert verify(tmp_path / NAME) == []


def test_foreign_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "mine.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(StorageError, match="not a result of wsi-nuc"):
            publish_store(tmp_path, overwrite=overwrite)
    assert (tmp_path / NAME / "mine.txt").read_text() == "precious"


def test_the_last_check_stops_the_publication(tmp_path: Path) -> None:
    def changed() -> None:
        raise StorageError("x.svs", "changed during the run", "repeat the same command")

    made = origin()
    with Staging(made_folder(tmp_path), NAME) as staging:
        write_store(staging.root, [nuclei(5)], made)
        accounting = Accounting(TileCounts())
        with pytest.raises(StorageError, match="changed during"):
            publish(staging, made, lambda root: build(root, made, accounting, {}, {}), check=changed)
    assert visible(tmp_path) == []


def test_what_does_not_read_back_is_not_published(tmp_path: Path) -> None:
    def flip(operation: str, path: Path) -> None:
        # The device returns other bytes than were written, after they were hashed for the manifest.
        if operation == "rename" and path.name == "manifest.json":
            data = path.parent / "shapes/nuclei/shapes.parquet"
            data.write_bytes(b"PAR0" + data.read_bytes()[4:])

    with before_call(flip), pytest.raises(StorageError, match="did not read back"):
        publish_store(tmp_path)
    assert visible(tmp_path) == []


def test_clean_up_spares_the_living(tmp_path: Path) -> None:
    with Staging(made_folder(tmp_path), NAME) as living:
        dead = living.root.path.with_name(f"{'0' * 32}.zarr")
        dead.mkdir()
        (dead / "zarr.json").write_text("{}")
        dead.with_suffix(".lock").touch()
        assert clean_up(made_folder(tmp_path)) == []
        assert not dead.exists()
        assert living.root.path.is_dir()


@pytest.mark.parametrize("where", [".wsi-nuc", ".wsi-nuc/staging", NAME])
def test_links_in_the_output_are_refused(tmp_path: Path, where: str) -> None:
    outside, out_dir = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (out_dir / where).parent.mkdir(parents=True)
    (out_dir / where).symlink_to(outside)
    with pytest.raises(StorageError, match="symbolic link"):
        publish_store(out_dir)
    assert list(outside.iterdir()) == []


def test_link_swapped_in_during_the_run_is_refused(tmp_path: Path) -> None:
    outside, out_dir, made = tmp_path / "outside", tmp_path / "out", origin()
    outside.mkdir()

    def swap(root: Path) -> dict[str, object]:
        (out_dir / NAME).symlink_to(outside)
        return build(root, made, Accounting(TileCounts()), {}, {})

    with Staging(made_folder(out_dir), NAME) as staging:
        write_store(staging.root, [nuclei(5)], made)
        with pytest.raises(StorageError, match="symbolic link"):
            publish(staging, made, swap)
    assert list(outside.iterdir()) == []


def test_output_folder_replaced_during_the_run_is_refused(tmp_path: Path) -> None:
    out_dir, made = tmp_path / "out", origin()

    def swap(root: Path) -> dict[str, object]:
        manifest = build(root, made, Accounting(TileCounts()), {}, {})
        shutil.copytree(out_dir, tmp_path / "copy", symlinks=True)
        out_dir.rename(tmp_path / "old")
        (tmp_path / "copy").rename(out_dir)
        return manifest

    with Staging(made_folder(out_dir), NAME) as staging:
        write_store(staging.root, [nuclei(5)], made)
        with pytest.raises(StorageError, match="replaced by another folder"):
            publish(staging, made, swap)
    assert visible(out_dir) == []


@pytest.mark.parametrize("victim", ["shapes/nuclei/shapes.parquet", "tables/nuclei_table/X/c.0.0", "zarr.json"])
@pytest.mark.parametrize("how", ["deleted", "flipped", "truncated", "link"])
def test_damage_is_named_and_republished(tmp_path: Path, victim: str, how: str) -> None:
    path = publish_store(tmp_path).path
    before, file = read(path), path / victim
    data = bytearray(file.read_bytes())
    file.unlink()
    if how == "flipped":
        data[len(data) // 2] ^= 1
    if how in ("flipped", "truncated"):
        file.write_bytes(data if how == "flipped" else data[:-1])
    if how == "link":
        file.symlink_to(tmp_path / "elsewhere")
    problems = problems_of(path)
    assert set(problems) == {victim}
    assert verify(path) == [f"{victim} {problems[victim]}"]
    assert is_result(path)
    assert check_target(made_folder(tmp_path), NAME, origin().key) is None
    again = publish_store(tmp_path)
    assert again.new
    assert read(path) == before
    assert verify(path) == []


def test_lost_and_edited_manifests_and_strangers_are_noticed(tmp_path: Path) -> None:
    path = publish_store(tmp_path).path
    manifest = path / "manifest.json"
    edited = json.loads(manifest.read_text())
    edited["counts"]["nuclei"] = 7
    (path / "notes.txt").write_text("x")
    manifest.write_text(json.dumps(edited))
    assert set(problems_of(path)) == {"manifest.json", "notes.txt"}
    manifest.unlink()
    assert verify(path) == ["manifest.json is missing, so nothing says what was published"]
    assert is_result(path)
    assert publish_store(tmp_path).new
    assert verify(path) == []


@pytest.mark.parametrize("kind", ["nothing", "file", "empty", "other zarr", "other manifest", "result"])
def test_what_never_was_a_result_is_told_from_a_damaged_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("text")
    elif kind != "nothing":
        (path / "c").mkdir(parents=True)
    if kind == "other zarr":
        (path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    if kind in ("other manifest", "result"):
        (path / "manifest.json").write_text('{"name": "x"}' if kind == "other manifest" else '{"made_from"')
    (problem,) = verify(path)
    assert is_result(path) == (kind == "result")
    assert problem.startswith("is not a result of wsi-nuc") == (kind != "result")


def all_good(manifest: dict[str, dict[str, int]]) -> bool:
    return not manifest["tiles"]["failed"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("atomic", [True, False])
def test_a_result_with_failed_tiles_gives_way_to_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, atomic: bool
) -> None:
    if not atomic:
        monkeypatch.setattr(durable, "exchange", lambda source, target: False)
    publish_store(tmp_path, 20, failed=3)
    # A caller that accepts failed tiles gets it as it is.
    assert check_target(made_folder(tmp_path), NAME, origin().key, overwrite) is not None
    assert not publish_store(tmp_path, 50, overwrite=overwrite).new
    assert check_target(made_folder(tmp_path), NAME, origin().key, overwrite, all_good) is None
    assert read(tmp_path / NAME)["tiles"]["failed"] == 3
    good = publish_store(tmp_path, 50, overwrite=overwrite, acceptable=all_good)
    assert good.new
    assert verify(good.path) == []
    assert read(good.path)["counts"]["nuclei"] == 50
    assert visible(tmp_path) == [NAME]
    assert staged(tmp_path) == []
    # The good result stays, whatever a caller accepts.
    assert not publish_store(tmp_path, 20, failed=3, overwrite=overwrite, acceptable=all_good).new
    published = check_target(made_folder(tmp_path), NAME, origin().key, overwrite, all_good)
    assert published is not None
    assert published.manifest == good.manifest


def test_a_failed_file_never_writes_into_the_next_one(tmp_path: Path) -> None:
    writer = NucleiWriter(ZarrFolder(made_folder(tmp_path) / "failed"), CLASSES, 0.25, core_boxes_l0)
    # Two full row groups, so that the Parquet writer has a footer to write when it is collected.
    writer.append(nuclei(2 * ROW_GROUP_ROWS))
    writer.__exit__(StorageError, None, None)
    victim = tmp_path / "victim"
    with victim.open("wb") as file:
        del writer
        gc.collect()
        file.write(b"mine")
    assert victim.read_bytes() == b"mine"


def test_the_old_result_survives_a_failure_while_it_is_replaced(tmp_path: Path) -> None:
    before = publish_store(tmp_path, failed=3).manifest
    with failing(0, errno.EIO, only="exchange"), pytest.raises(StorageError):
        publish_store(tmp_path, acceptable=all_good)
    assert read(tmp_path / NAME) == before
    assert verify(tmp_path / NAME) == []


def test_locks_of_dead_runs_are_cleared_away_and_those_of_the_living_kept(tmp_path: Path) -> None:
    out = made_folder(tmp_path)
    dead, alive = slide_lock(out, "d" * 64), slide_lock(out, "e" * 64)
    Held(try_lock(dead)[0]).close()
    with Held(try_lock(alive)[0]):
        clean_up(made_folder(tmp_path))
        assert dead.parent.names() == [alive.name]
        assert try_lock_once(alive) is False


def test_a_published_store_keeps_no_lock(tmp_path: Path) -> None:
    publish_store(tmp_path)
    check_target(made_folder(tmp_path), NAME, origin().key)
    private = tmp_path / ".wsi-nuc"
    assert [path for path in private.rglob("*") if not path.is_dir()] == []
    # A lock that a killed process left is removed by the next run.
    (private / "commit" / f"{NAME}.lock").touch()
    # What NFS keeps of a lock that was unlinked while it is held is not a stranger; other files are.
    for name in (".nfs0001", "notes"):
        (private / "commit" / name).touch()
    assert [stranger.name for stranger in clean_up(made_folder(tmp_path))] == ["notes"]
    assert sorted(path.name for path in (private / "commit").iterdir()) == [".nfs0001", "notes"]


def test_only_one_at_a_time_commits_although_the_lock_goes(tmp_path: Path) -> None:
    out, inside, most = made_folder(tmp_path), [], []

    def commit_once(_: int) -> None:
        with commit.commit_lock(out, NAME):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.001)
            inside.pop()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(commit_once, range(200)))
    assert max(most) == 1


def try_lock_once(place: Place) -> bool | None:
    fd, locked = try_lock(place)
    with Held(fd):
        return locked


def test_unwritable_output_is_found_before_work_starts(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(StorageError, match="not a folder"):
        output_folder(file)
    with failing(0, errno.EROFS, only="create"), pytest.raises(StorageError, match="Choose another output folder"):
        output_folder(tmp_path / "out")
    with pytest.raises(StorageError, match="bytes are needed"):
        output_folder(tmp_path, needed=2**60)
    output_folder(tmp_path / "fine")
    assert list((tmp_path / "fine" / ".wsi-nuc").iterdir()) == []


def test_differences_name_the_leaves() -> None:
    old, new = {"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4}, "e": "x"}
    assert differences(old, new) == ["b.c: 2 -> 4", "b.d: 3 -> None", "e: None -> 'x'"]


def test_lock_of_a_file_that_was_removed_meanwhile_is_not_trusted(tmp_path: Path) -> None:
    path = made_folder(tmp_path) / "a.lock"
    first, locked = try_lock(path)
    assert locked
    path.unlink()
    second, also = try_lock(path)
    assert also
    assert path.exists()
    third, refused = try_lock(path)
    assert refused is False
    for fd in (first, second, third):
        commit.os.close(fd)
