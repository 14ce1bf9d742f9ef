"""Parts survive kills and come back exactly; a damaged one is as good as none."""

from __future__ import annotations

import errno
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
from tests.store.faults import failing
from wsi_nuc.errors import StorageError
from wsi_nuc.store.locks import run_lock
from wsi_nuc.store.parts import find_parts, parts_dir, read_part, write_part
from wsi_nuc.types import NucleiTable


def own(table: NucleiTable) -> np.ndarray:
    return np.arange(len(table)) % 3 == 0


@given(count=st.integers(0, 60), classes=st.integers(1, 7), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_parts_come_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, count: int, classes: int, seed: int
) -> None:
    table = nuclei(count, seed, classes)
    report = {"tiles": 4, "failed": [[0, 0, 256, 256]], "text": "=1+1"}
    part = write_part(tmp_path_factory.mktemp("parts"), 7, table, own(table), report)
    back, own_back, report_back = read_part(part.path)
    for field in fields(NucleiTable):
        written, read = getattr(table, field.name), getattr(back, field.name)
        assert written.dtype == read.dtype
        assert written.shape == read.shape
        assert written.tobytes() == read.tobytes()
    assert own_back.tolist() == own(table).tolist()
    assert report_back == report
    assert part.rows == count


def test_two_writers_leave_one_file(tmp_path: Path) -> None:
    table = nuclei(20)
    refs = [write_part(tmp_path, 3, table, own(table), {}) for _ in range(2)]
    assert refs[0] == refs[1]
    assert [p.name for p in tmp_path.iterdir()] == [Path(refs[0].path).name]


def test_damaged_and_half_written_parts_are_thrown_away(tmp_path: Path) -> None:
    table = nuclei(20)
    paths = [Path(write_part(tmp_path, i, table, own(table), {}).path) for i in range(3)]
    data = bytearray(paths[1].read_bytes())
    data[len(data) // 2] ^= 1
    paths[1].write_bytes(data)
    (tmp_path / ".tmp-abc").write_bytes(data)
    with pytest.raises(StorageError, match="does not match its name"):
        read_part(paths[1])
    assert find_parts(tmp_path) == {0: paths[0], 2: paths[2]}
    assert sorted(tmp_path.iterdir()) == sorted([paths[0], paths[2]])
    assert find_parts(tmp_path / "none") == {}


@pytest.mark.parametrize("number", range(7))
def test_full_disk_leaves_no_part(tmp_path: Path, number: int) -> None:
    folder, table = tmp_path / "parts", nuclei(20)
    with failing(number, errno.ENOSPC), pytest.raises(StorageError):
        write_part(folder, 1, table, own(table), {})
    # The last call syncs the folder: by then the part itself is whole.
    assert len(find_parts(folder)) == int(number == 6)
    assert write_part(folder, 1, table, own(table), {}).rows == 20


def test_run_lock_waits_and_says_so(tmp_path: Path) -> None:
    waited, order = threading.Event(), []

    def second() -> None:
        with run_lock(tmp_path, "f" * 64, waited.set):
            order.append("second")

    with run_lock(tmp_path, "f" * 64) as locked:
        assert locked
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_run_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom wsi_nuc.store.locks import run_lock\n"
        "with run_lock(pathlib.Path(sys.argv[1]), 'f' * 64): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with run_lock(tmp_path, "f" * 64, lambda: pytest.fail("the dead still hold the lock")) as locked:
        assert locked


def test_parts_are_keyed_by_identity(tmp_path: Path) -> None:
    assert parts_dir(tmp_path, "a" * 64) != parts_dir(tmp_path, "b" * 64)
