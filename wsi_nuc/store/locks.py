"""Advisory locks that die with their holder. They only save work: correctness rests on atomic renames."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from wsi_nuc.errors import StorageError
from wsi_nuc.store.durable import make_dir, remove_file, storage_error

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def _nothing() -> None:
    """Called where nobody wants to hear of the waiting."""


def _still_there(fd: int, path: Path) -> bool:
    # Whoever cleans up unlinks the file under the lock, so a lock on an unlinked file protects nothing.
    try:
        at_path = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), at_path)


def _acquire(fd: int, waiting: Callable[[], None] | None, kind: int) -> bool | None:
    """True: locked. False: somebody else holds it and we shall not wait. None: no locks on this file system."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is None:
            return False
        waiting()
        fcntl.flock(fd, kind)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _open(path: Path) -> int:
    """The folder may be cleared away between its making and the opening, by whoever was its last user.

    What is there is opened without O_CREAT: in a sticky folder the system may refuse it for another user's file.
    """
    while True:
        make_dir(path.parent)
        for create in (0, os.O_CREAT):
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDWR | create | os.O_NOFOLLOW, 0o666)


def try_lock(
    path: Path, waiting: Callable[[], None] | None = None, shared: bool = False
) -> tuple[int, bool | None]:
    """Open `path` and lock it. Returns the descriptor, which the caller closes, and what `_acquire` says."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        while True:
            fd = _open(path)
            locked = _acquire(fd, waiting, kind)
            if not locked or _still_there(fd, path):
                return fd, locked
            os.close(fd)
    except OSError as error:
        raise storage_error(path, error) from error


def relock(fd: int, shared: bool) -> bool:
    """Lock an open file without waiting, or turn the one kind of lock into the other."""
    return bool(_acquire(fd, None, fcntl.LOCK_SH if shared else fcntl.LOCK_EX))


def is_held(path: Path) -> bool | None:
    """Whether somebody has locked `path`, without changing anything. None where nobody can tell."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    with Held(fd):
        try:
            locked = _acquire(fd, None, fcntl.LOCK_SH)
        except OSError:
            return None
    return None if locked is None else not locked


class Held:
    """A descriptor whose lock lasts until `close`, or until the process ends."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def hold(path: Path, waiting: Callable[[], None] = _nothing) -> Iterator[bool]:
    """Hold the lock at `path`, waiting for its holder. Yields False where the file system knows no locks."""
    fd, locked = try_lock(path, waiting)
    with Held(fd):
        yield bool(locked)


def discard_dead(lock: Path, remove: Callable[[], None] = _nothing) -> bool | None:
    """If nobody holds `lock`: `remove` what it stands for, then the lock file itself.

    False if somebody does; None where nobody can tell, since the file system has no locks or the file is another
    user's: nothing is removed.
    """
    try:
        fd, locked = try_lock(lock)
    except StorageError:
        return None
    with Held(fd):
        if locked:
            remove()
            remove_file(lock)
    return locked


def private_dir(out_dir: Path) -> Path:
    """Where everything lives that is not a result: parts, staging, locks, claims of names."""
    return Path(out_dir) / ".wsi-nuc"


def slide_lock_path(out_dir: Path, key: str) -> Path:
    """The lock of whoever computes the slide with this key, for `try_lock`: one process an output folder."""
    return private_dir(out_dir) / "runs" / f"{key[:16]}.lock"
