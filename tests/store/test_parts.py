"""Parts survive kills and come back exactly; a damaged part counts as missing."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.build import nuclei
from tests.store.faults import failing, no_flock
from wsi_nuc.errors import StorageError
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.locks import Held, hold, try_lock
from wsi_nuc.store.parts import find_parts, hold_parts, parts_dir, parts_key, read_part, remove_parts, write_part
from wsi_nuc.store.private import slide_lock

A, B = "a" * 64, "b" * 64


def own(table: NucleiTable) -> np.ndarray:
    return np.arange(len(table)) % 3 == 0


@given(count=st.integers(0, 60), classes=st.integers(1, 7), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_parts_come_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, count: int, classes: int, seed: int
) -> None:
    table = nuclei(count, seed, classes)
    report = {"tiles": 4, "failed": [[0, 0, 256, 256]], "text": "=1+1"}
    folder = made_folder(tmp_path_factory.mktemp("parts"))
    name = write_part(folder, 7, table, own(table), report)
    back, own_back, report_back = read_part(folder / name)
    for field in fields(NucleiTable):
        written, read = getattr(table, field.name), getattr(back, field.name)
        assert written.dtype == read.dtype
        assert written.shape == read.shape
        assert written.tobytes() == read.tobytes()
    assert own_back.tolist() == own(table).tolist()
    assert report_back == report


def test_two_writers_leave_one_file(tmp_path: Path) -> None:
    table = nuclei(20)
    names = [write_part(made_folder(tmp_path), 3, table, own(table), {}) for _ in range(2)]
    assert names[0] == names[1]
    assert [p.name for p in tmp_path.iterdir()] == [names[0]]


def test_damaged_and_half_written_parts_are_thrown_away(tmp_path: Path) -> None:
    table = nuclei(20)
    folder = made_folder(tmp_path)
    paths = [tmp_path / write_part(folder, i, table, own(table), {}) for i in range(3)]
    data = bytearray(paths[1].read_bytes())
    data[len(data) // 2] ^= 1
    paths[1].write_bytes(data)
    (tmp_path / f".tmp-{'a' * 32}").write_bytes(data)
    with pytest.raises(StorageError, match="does not match its name"):
        read_part(folder / paths[1].name)
    parts = find_parts(folder)
    assert {index: part.path for index, part in parts.items()} == {0: paths[0], 2: paths[2]}
    assert sorted(tmp_path.iterdir()) == sorted([paths[0], paths[2]])
    assert find_parts(folder / "none") == {}


@pytest.mark.parametrize("number", range(6))
def test_full_disk_leaves_no_part(tmp_path: Path, number: int) -> None:
    folder, table = made_folder(tmp_path) / "parts", nuclei(20)
    with failing(number, errno.ENOSPC), pytest.raises(StorageError):
        write_part(folder, 1, table, own(table), {})
    # The last call syncs the folder: by then, the part itself is complete.
    assert len(find_parts(folder)) == int(number == 5)
    assert len(read_part(folder / write_part(folder, 1, table, own(table), {}))[0]) == 20


def test_run_lock_waits_and_says_so(tmp_path: Path) -> None:
    waited, order, path = threading.Event(), [], slide_lock(made_folder(tmp_path), "f" * 64)

    def second() -> None:
        with hold(path, waited.set):
            order.append("second")

    with hold(path) as locked:
        assert locked
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def killed_while(tmp_path: Path, statement: str) -> None:
    code = (
        "import os, sys, pathlib\nfrom wsi_nuc.store.locks import try_lock\n"
        "from wsi_nuc.store.parts import hold_parts\n"
        "from wsi_nuc.store.folders import made_folder\nfrom wsi_nuc.store.private import slide_lock\n"
        "out = made_folder(pathlib.Path(sys.argv[1]))\n"
        f"held = {statement}\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9


def test_run_lock_dies_with_its_process(tmp_path: Path) -> None:
    killed_while(tmp_path, "try_lock(slide_lock(out, 'f' * 64))")
    fd, locked = try_lock(slide_lock(made_folder(tmp_path), "f" * 64))
    with Held(fd):
        assert locked


def test_parts_are_keyed_by_slide_and_settings(tmp_path: Path) -> None:
    out = made_folder(tmp_path)
    folders = {parts_dir(out, slide, key) for slide in (A, B) for key in (A, B)}
    assert len(folders) == 4
    assert parts_dir(out, A, B).parent == parts_dir(out, A, A).parent


KEY_A, KEY_B = parts_key(A, 8), parts_key(B, 4)


def leave_part(root: Path, slide: str, key: str) -> Path:
    table, out = nuclei(5), made_folder(root)
    folder = parts_dir(out, slide, key)
    with hold_parts(out, slide, key):
        return folder.path / write_part(folder, 0, table, own(table), {})


def test_parts_of_a_slide_go_whatever_made_them(tmp_path: Path) -> None:
    gone, stays = [leave_part(tmp_path, A, key) for key in (KEY_A, KEY_B)], leave_part(tmp_path, B, KEY_A)
    remove_parts(made_folder(tmp_path), A)
    assert not any(path.exists() for path in gone)
    assert not gone[0].parents[1].exists()
    assert read_part(parts_dir(made_folder(tmp_path), B, KEY_A) / stays.name)[2] == {}
    remove_parts(made_folder(tmp_path), A)


def test_parts_that_somebody_works_on_stay(tmp_path: Path) -> None:
    gone, stays = leave_part(tmp_path, A, KEY_A), leave_part(tmp_path, A, KEY_B)
    out = made_folder(tmp_path)
    with hold_parts(out, A, KEY_B), hold_parts(out, A, KEY_B):
        remove_parts(out, A, own_key=KEY_B)
        assert stays.is_file()
        assert not gone.parent.exists()
        assert not gone.parent.with_suffix(".lock").exists()
        # The folder is still good for more parts.
        assert leave_part(tmp_path, A, KEY_B) == stays
    remove_parts(made_folder(tmp_path), A)
    assert not stays.exists()


def test_parts_of_killed_runs_are_nobodys(tmp_path: Path) -> None:
    left = leave_part(tmp_path, A, KEY_B)
    killed_while(tmp_path, f"hold_parts(out, {A!r}, {KEY_B!r})")
    remove_parts(made_folder(tmp_path), A)
    assert not left.exists()


def test_without_locks_only_the_own_parts_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_part, other = leave_part(tmp_path, A, KEY_A), leave_part(tmp_path, A, KEY_B)
    monkeypatch.setattr(fcntl, "flock", no_flock)
    remove_parts(made_folder(tmp_path), A, own_key=KEY_A)
    assert not own_part.exists()
    assert other.is_file()


def test_holding_and_removing_at_once_never_loses_a_held_part(tmp_path: Path) -> None:
    stop, out = threading.Event(), made_folder(tmp_path)

    def remove() -> None:
        while not stop.is_set():
            remove_parts(out, A)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(30):
            with hold_parts(out, A, KEY_B):
                table = nuclei(1)
                folder = parts_dir(out, A, KEY_B)
                assert (folder / write_part(folder, 0, table, own(table), {})).exists()
    finally:
        stop.set()
        remover.join(10)
