"""Advisory locks that end with their process. They only save work; atomic renames keep the results correct."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from wsi_nuc.errors import StorageError
from wsi_nuc.store.durable import open_file, remove_file
from wsi_nuc.store.oserror import storage_error
from wsi_nuc.store.place import IsLink, Place

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def _nothing() -> None:
    """For callers that report nothing while they wait."""


def _still_there(fd: int, place: Place) -> bool:
    # A clean-up unlinks the file while it holds the lock, so a lock on an unlinked file protects nothing.
    now = place.stat()
    return now is not None and os.path.samestat(os.fstat(fd), now)


def _acquire(fd: int, waiting: Callable[[], None] | None, kind: int) -> bool | None:
    """True: locked. False: somebody else holds it, and `waiting` is None. None: this file system has no locks."""
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


def try_lock(
    place: Place, waiting: Callable[[], None] | None = None, shared: bool = False
) -> tuple[int, bool | None]:
    """Open the file and lock it. Returns the descriptor, which the caller closes, and the answer of `_acquire`."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        while True:
            fd = open_file(place, os.O_RDWR)
            locked = _acquire(fd, waiting, kind)
            if not locked or _still_there(fd, place):
                return fd, locked
            os.close(fd)
    except OSError as error:
        raise storage_error(place.path, error) from error


def relock(fd: int, shared: bool) -> bool:
    """Lock an open file without waiting, or change the kind of its lock."""
    return bool(_acquire(fd, None, fcntl.LOCK_SH if shared else fcntl.LOCK_EX))


def is_held(place: Place) -> bool | None:
    """Whether somebody has locked the file, without changing anything. None if this cannot be known."""
    try:
        fd = place.open(os.O_RDONLY)
    except FileNotFoundError:
        return False
    except StorageError:
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
def hold(place: Place, waiting: Callable[[], None] = _nothing) -> Iterator[bool]:
    """Hold the lock, after waiting for its holder. Yields False if the file system has no locks."""
    fd, locked = try_lock(place, waiting)
    with Held(fd):
        yield bool(locked)


def _all_gone() -> bool:
    """For a lock that stands for nothing but itself."""
    return True


def discard_dead(lock: Place, remove: Callable[[], bool] = _all_gone) -> bool | None:
    """If nobody holds `lock`: `remove` what it stands for, then the lock file, which stays if `remove` failed.

    Returns False if somebody holds it, and None if this cannot be known, because the file system has no locks or
    the file is another user's. In both cases nothing is removed.
    """
    try:
        fd, locked = try_lock(lock)
    except IsLink:
        raise
    except StorageError:
        return None
    with Held(fd):
        if locked and remove():
            remove_file(lock)
    return locked
