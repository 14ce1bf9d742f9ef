"""What a power cut could leave of a folder: only the bytes that were flushed, and the names of either moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from unittest import mock

Inode = int
# Name -> its inode, and whether it is a folder.
Entries = dict[str, tuple[Inode, bool]]


class Disk:
    """Remembers every flush below `root`, which has to exist and to lie on one file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[Inode, bytes] = {}
        self._folders: dict[Inode, Entries] = {}
        # An open descriptor prevents the number of its inode from being used for another file.
        self._open: list[int] = []
        self._lock, self._fsync = Lock(), os.fsync

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watches from now on. What is there already counts as flushed."""
        for folder, _, names in os.walk(self._root):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                fd = os.open(path, os.O_RDONLY)
                self._remember(fd)
                os.close(fd)
        try:
            with mock.patch.object(os, "fsync", self._flush):
                yield
        finally:
            for fd in self._open:
                os.close(fd)

    def _flush(self, fd: int) -> None:
        self._fsync(fd)
        self._remember(fd)

    def _remember(self, fd: int) -> None:
        inode, path = os.fstat(fd).st_ino, Path(f"/proc/self/fd/{fd}")
        with self._lock:
            if inode not in self._files and inode not in self._folders:
                self._open.append(os.dup(fd))
            if path.is_dir():
                self._folders[inode] = _entries(path)
            else:
                self._files[inode] = path.read_bytes()

    def cut(self, target: Path, names_kept: bool) -> None:
        """Rebuild at `target` what is left of `root`. What was written but not flushed is lost in any case.

        `names_kept`: names that were made, moved or removed since the last flush of their folder are as they are
        now, else as they were at that flush.
        """
        self._rebuild(self._root.stat().st_ino, self._root if names_kept else None, target)

    def _rebuild(self, inode: Inode, now: Path | None, target: Path) -> None:
        target.mkdir()
        entries = self._folders.get(inode, {}) if now is None else _entries(now)
        for name, (child, is_folder) in entries.items():
            if is_folder:
                self._rebuild(child, now and now / name, target / name)
            elif child in self._files:
                (target / name).write_bytes(self._files[child])
            else:
                (target / name).touch()


def _entries(folder: Path) -> Entries:
    return {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}
