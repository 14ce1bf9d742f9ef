"""Every call that makes something durable or visible goes through here, so that tests can break each one."""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from wsi_nuc.errors import StorageError

_EXCHANGE = 2
_SYNC_THREADS = 16
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_COPIED_AT_ONCE = 1 << 24
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


def _let_pass(operation: str, path: Path) -> None:
    """The production hook: nothing happens before a durable call."""


# Replaced by tests that raise an OSError or kill the process at the n-th call.
before: Callable[[str, Path], None] = _let_pass


def free_bytes(path: Path) -> int:
    """Bytes left for this user on the file system of `path`, or of the nearest folder above that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def storage_error(path: Path, error: OSError, needed: int = 0) -> StorageError:
    """What to tell the user about a failed call on `path` that wanted to write `needed` bytes."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        sizes = f"{needed:,} bytes needed, {free_bytes(path.parent):,} free"
        return StorageError(
            path, f"{reason} ({sizes})", "free space or raise the quota, then repeat the same command: it resumes"
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return _forbidden(path, reason)
    return StorageError(path, reason, "check the file system, then repeat the same command: it resumes")


def _forbidden(path: Path, reason: str) -> StorageError:
    """In a folder that several people share, whose it is and what they can do."""
    own = "choose another output folder with --out, or make this one writable"
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    try:
        status, above = there.lstat(), there.parent.lstat()
        owner = _user(status.st_uid)
    except OSError:
        return StorageError(path, reason, own)
    if status.st_uid == os.geteuid():
        return StorageError(path, reason, own)
    if there == path and above.st_mode & stat.S_ISVTX:
        cause = (
            f"{reason}: it belongs to {owner}, and in the sticky folder {there.parent} nobody else may replace it"
        )
        return StorageError(path, cause, f"have it removed by {owner}, or the folder opened (chmod -t)")
    remedy = f"share it: {owner} sets umask 002 and calls chmod -R g+w; or choose another output folder with --out"
    return StorageError(path, f"{reason}: {there} belongs to {owner}", remedy)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@contextmanager
def reported(operation: str, path: Path, needed: int = 0) -> Iterator[None]:
    """Whatever the system refuses to do to `path` becomes a StorageError with its remedy."""
    try:
        before(operation, path)
        yield
    except OSError as error:
        raise storage_error(path, error, needed) from error


class DurableFile:
    """A new file that is written front to back. It never follows a link and never opens what is there already."""

    closed = False

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        make_dir(path.parent)
        with reported("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)

    def write(self, data: bytes | memoryview) -> int:
        # pyarrow writes the footer of an abandoned file when it is collected; the descriptor is another's by then.
        if self.closed:
            raise ValueError(f"{self.path} is closed")
        view = memoryview(data).cast("B")
        with reported("write", self.path, len(view)):
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
        """A network file system reports lost writes only here, so the result of close counts."""
        if not self.closed:
            self.closed = True
            with reported("close", self.path):
                os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def abandon(self) -> None:
        """Give the descriptor back after a failure; what was written is worthless."""
        if not self.closed:
            self.closed = True
            with suppress(OSError):
                os.close(self._fd)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def make_dir(path: Path) -> None:
    if not path.is_dir():
        with reported("mkdir", path):
            path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """A new file, not yet synced: `sync_tree` does that for a whole staging folder at once."""
    with DurableFile(path) as file:
        file.write(data)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    with reported("fsync", path):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(fd)
        except OSError as error:
            # Some file systems cannot sync a folder; a file must always be syncable.
            if not (path.is_dir() and error.errno == errno.EINVAL):
                raise
        finally:
            os.close(fd)


def sync_tree(root: Path) -> None:
    """Flush every file below `root`, then every folder and `root` itself."""
    files, folders = [], []
    for folder, _, names in os.walk(root, topdown=False):
        folders.append(Path(folder))
        files += [Path(folder, name) for name in sorted(names)]
    # A flush waits for the journal; many waiting at once share one commit of it.
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(sync, files))
        list(pool.map(sync, folders))


def rename(source: Path, target: Path) -> None:
    with reported("rename", target):
        source.rename(target)


def atomic_write(path: Path, data: bytes) -> None:
    """Create or replace one small file: afterwards it is complete and durable, or it is as it was."""
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        write_file(temporary, data)
        sync(temporary)
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links. Neither is ever written to."""
    make_dir(target.parent)
    with reported("link", target):
        try:
            os.link(source, target, follow_symlinks=False)
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    with source.open("rb") as old, DurableFile(target) as new:
        while block := old.read(_COPIED_AT_ONCE):
            new.write(block)


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step. False where the file system cannot; then nothing has changed."""
    with reported("exchange", other):
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "renameat2"):
            return False
        cwd = -100
        if libc.renameat2(cwd, os.fsencode(one), cwd, os.fsencode(other), _EXCHANGE) == 0:
            return True
        code = ctypes.get_errno()
        if code in _NO_EXCHANGE:
            return False
        raise OSError(code, os.strerror(code), str(other))


def remove_file(path: Path) -> None:
    """Delete what nobody needs any more. In a shared folder it may be another user's to delete: then it stays."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Delete what nobody can see any more; a leftover is cleaned up by the next run, so failing is no error."""
    shutil.rmtree(path, ignore_errors=True)
