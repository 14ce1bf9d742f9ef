"""Every call that makes something durable or visible goes through here, so that tests can make each one fail."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from wsi_nuc.errors import StorageError
from wsi_nuc.store.oserror import storage_error
from wsi_nuc.store.place import Place, forgiving

_NO_REPLACE, _EXCHANGE = 1, 2
_SYNC_THREADS = 16
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_COPIED_AT_ONCE = 1 << 24
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
# How often a folder may disappear between its making and its use, because somebody clears it away.
_TRIES = 100


# A hook for tests. It is called before each durable call, with the call's kind and path, and may raise an OSError
# or kill the process.
before: Callable[[str, Path], None] | None = None


@contextmanager
def reported(operation: str, place: Place, needed: int = 0) -> Iterator[None]:
    """Turn whatever the system refuses to do with `place` into a StorageError with a remedy."""
    try:
        if before is not None:
            before(operation, place.path)
        yield
    except OSError as error:
        raise storage_error(place.path, error, needed) from error


def open_file(place: Place, flags: int) -> int:
    """A descriptor of a file. If the file does not exist, it is made, together with its folders.

    An existing file is opened without O_CREAT: in a sticky folder the system may refuse that for another user's
    file.
    """
    for attempt in range(_TRIES):
        try:
            if not flags & os.O_EXCL:
                with suppress(FileNotFoundError):
                    return place.open(flags)
            return place.open(flags | os.O_CREAT, make=True)
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


class DurableFile:
    """A new file that is written front to back. It never follows a link and never opens an existing file."""

    closed = False

    def __init__(self, place: Place) -> None:
        self.place, self.size = place, 0
        with reported("create", place):
            self._fd = open_file(place, os.O_WRONLY | os.O_EXCL)

    def write(self, data: bytes | memoryview) -> int:
        # pyarrow writes the footer of an abandoned file when it is collected. By then, the number of the
        # descriptor may belong to another file.
        if self.closed:
            raise ValueError(f"{self.place} is closed")
        view = memoryview(data).cast("B")
        with reported("write", self.place, len(view)):
            done = 0
            while done < len(view):
                done += os.write(self._fd, view[done:])
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is buffered here; pyarrow asks for the method."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Errors count here: a network file system may report lost writes only on close."""
        if not self.closed:
            self.closed = True
            with reported("close", self.place):
                os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def abandon(self) -> None:
        """Close the descriptor after a failure. What was written does not matter any more."""
        if not self.closed:
            self.closed = True
            with suppress(OSError):
                os.close(self._fd)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def make_dir(place: Place) -> None:
    if not place.is_dir():
        with reported("mkdir", place):
            place.make()


def write_file(place: Place, data: bytes) -> None:
    """A new file, not yet synced: `sync_tree` does this for a whole staging folder at once."""
    with DurableFile(place) as file:
        file.write(data)


def sync(place: Place) -> None:
    """Flush a file or a folder to the disk."""
    with reported("fsync", place):
        fd = place.open(os.O_RDONLY)
        try:
            os.fsync(fd)
        except OSError as error:
            # Some file systems cannot sync a folder; a file must always be syncable.
            if not (stat.S_ISDIR(os.fstat(fd).st_mode) and error.errno == errno.EINVAL):
                raise
        finally:
            os.close(fd)


def sync_tree(root: Place) -> None:
    """Flush every file below the open folder `root`, and after its files every folder, `root` included."""
    folders: list[tuple[Place, list[str]]] = []
    for relative, _, names, _ in os.fwalk(".", topdown=False, onerror=_raise, dir_fd=root.base.fd):
        folders.append((root / relative[2:] if relative != "." else root, sorted(names)))
    # A flush waits for the journal, and many that wait at once share one commit of it.
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(_sync_folder, *zip(*folders, strict=True)))


def _raise(error: OSError) -> None:
    raise error


def _sync_folder(folder: Place, names: Sequence[str]) -> None:
    opened = folder.opened()
    for name in names:
        sync(opened / name)
    sync(opened)


def rename(source: Place, target: Place) -> None:
    with reported("rename", target):
        source.rename(target)


def atomic_write(place: Place, data: bytes) -> None:
    """Create or replace a small file. Afterwards it is complete and durable, or it is as it was before."""
    temporary = place.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        write_file(temporary, data)
        sync(temporary)
        rename(temporary, place)
    finally:
        temporary.unlink()
    sync(place.parent)


def link_or_copy(source: Place, target: Place) -> None:
    """The same file under a second name, or a copy if the file system has no links. Neither is ever written to."""
    make_dir(target.parent)
    with reported("link", target), source.above() as from_fd, target.above() as to_fd:
        try:
            os.link(source.name, target.name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    with source.reader() as old, DurableFile(target) as new:
        while block := old.read(_COPIED_AT_ONCE):
            new.write(block)


def rename_new(source: Place, target: Place) -> None:
    """Give a file or folder a new name. If the file system can check it, the name must not exist."""
    with reported("rename", target):
        if not _rename_at(source, target, _NO_REPLACE):
            source.rename(target)


def exchange(source: Place, target: Place) -> bool:
    """Swap two folders in one step. False if the file system cannot do that; then nothing has changed."""
    with reported("exchange", target):
        return _rename_at(source, target, _EXCHANGE)


def _rename_at(source: Place, target: Place, how: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    with source.above() as from_fd, target.above() as to_fd:
        if libc.renameat2(from_fd, os.fsencode(source.name), to_fd, os.fsencode(target.name), how) == 0:
            return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(target))


def remove_file(place: Place) -> None:
    """Delete what nobody needs any more. If only another user may delete it in a shared folder, it stays."""
    with forgiving():
        place.unlink()


def remove_tree(place: Place) -> bool:
    """Delete a folder or a file that nobody can see any more. Returns False if something is left, which is not an
    error: the next run cleans it up.

    A link in place of the tree is refused. A link inside is removed, and its target stays.
    """
    with forgiving():
        if place.exists() and not place.is_dir():
            place.unlink()
        elif place.exists():
            with place.above() as fd:
                shutil.rmtree(place.name, ignore_errors=True, dir_fd=fd)
        return not place.exists()
    return False


def remove_whole(place: Place) -> None:
    """Delete what must not be published."""
    if not remove_tree(place):
        raise StorageError(place, "could not be removed", "check the file system, then repeat the same command")
