"""The slide that the faults are tried on, what an undisturbed run makes of it, and disks to try them on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.one_run import digest_after, draw

IN_MEMORY = Path("/dev/shm")
SmallDisk = Callable[[int], Path]


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1024 x 512 px at 0.5 um, two regions of one tile each: a whole run takes half a second."""
    return draw(tmp_path_factory.mktemp("faults"), size=1024, height=512, seed=5, density=0.5)


@pytest.fixture(scope="session")
def undisturbed(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed run."""
    return digest_after(slide, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where a flush costs nothing, if there is one, so that hundreds of runs take seconds."""
    if not IN_MEMORY.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=IN_MEMORY, prefix="wsi-nuc-test-") as folder:
        yield Path(folder)


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    """Makes a file system of a given size in KiB. Skips the test where this user may not mount one."""
    mounted = []

    def make(size_kib: int) -> Path:
        folder = tmp_path_factory.mktemp("disk")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"this user may not mount a small disk ({done.stderr.strip()})")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)
